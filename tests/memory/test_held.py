"""What real runs hold, in processes of their own, is near what they were foretold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.runs import launch
from core.runs.artifacts import read_metrics

#: By how much a peak may be more or less than foretold.
FACTOR = 1.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        ["evaluate"],
        ["prune", "--method", "taylor_first", "--sparsity", "0.3"],
        ["prune", "--method", "wifv", "--sparsity", "0.3", "--reconstruct", "least_squares"],
        ["prune", "--method", "nuteprune", "--sparsity", "0.3", "--set", "steps=2", "--set", "held=2"],
    ],
    ids=lambda asked: asked[-1] if len(asked) == 1 else asked[2],
)
def test_a_process_holds_what_was_foretold(
    asked: list[str], tmp_path: Path, tiny_llama_folder: Path, texts: tuple[Path, Path]
) -> None:
    more = ["--calibration", str(texts[0]), "--samples", "8", "--length", "32"] if len(asked) > 1 else []
    command = [sys.executable, "-m", "core", asked[0], str(tiny_llama_folder), *asked[1:], *more]
    command += ["--ppl", str(texts[1]), "--window", "32", "--tokens", "320", "--device", "cpu"]
    command += ["--runs-dir", str(tmp_path), "--json"]
    done = subprocess.run(command, cwd=launch.ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (run_dir,) = (path for path in tmp_path.iterdir() if path.is_dir())
    metrics = read_metrics(run_dir)
    factor = metrics["run_memory_predicted_gib"] / metrics["run_memory_gib"]
    assert 1 / FACTOR < factor < FACTOR, json.dumps(metrics["run_memory_gib"])
    assert "The run needs about" in done.stderr
