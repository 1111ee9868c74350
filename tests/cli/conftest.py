"""What tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def asked(tiny_llama_folder: Path, texts: tuple[Path, Path], tmp_path: Path) -> dict[str, list[str]]:
    """The arguments that make each command quick."""
    runs = ["--runs-dir", str(tmp_path / "runs"), "--device", "cpu"]
    data = ["--calibration", str(texts[0]), "--samples", "4", "--length", "16", *runs]
    ppl = ["--ppl", str(texts[0]), "--window", "16"]
    measure = [*ppl, "--tokens", "64", "--prompt", "the a", "--max-new-tokens", "3", "--no-efficiency"]
    model = str(tiny_llama_folder)
    return {
        "groups": ["groups", model, "--device", "cpu"],
        "score": ["score", model, *data, "--criterion", "l2", "--criterion", "taylor_first"],
        "similarity": ["similarity", model, *data, "--tau", "1"],
        "sensitivity": ["sensitivity", model, *data, *ppl, "--ratio-tokens", "32", "--ratio-by", "l2"],
        "explore": ["explore", model, *data, "--analyses", "groups"],
        "prune": ["prune", model, *data, *measure, "--method", "l2", "--sparsity", "0.2"],
        "sweep": [
            "sweep",
            model,
            *data,
            *ppl,
            "--tokens",
            "64",
            "--methods",
            "l2,random",
            "--sparsities",
            "0.1,0.3",
            "--seeds",
            "0",
        ],
        "evaluate": ["evaluate", model, *measure, *runs],
        "generate": ["generate", model, "--prompt", "the a of", "--max-new-tokens", "4", "--device", "cpu"],
        "methods": ["methods"],
        "list": ["runs", "list", "--runs-dir", str(tmp_path / "runs")],
    }
