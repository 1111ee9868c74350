"""A text and the arguments that make every command quick."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.conftest import WORDS


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "words.txt"
    path.write_text(" ".join(random.Random(0).choices(WORDS.split(), k=2000)))
    return path


@pytest.fixture
def asked(tiny_llama_folder: Path, words: Path, tmp_path: Path) -> dict[str, list[str]]:
    """The arguments that make each command quick."""
    runs = ["--runs-dir", str(tmp_path / "runs"), "--device", "cpu"]
    data = ["--calibration", str(words), "--samples", "4", "--length", "16", *runs]
    ppl = ["--ppl", str(words), "--window", "16"]
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
            "--samples",
            "2",
        ],
        "evaluate": ["evaluate", model, *measure, *runs],
        "generate": ["generate", model, "--prompt", "the a of", "--max-new-tokens", "4", "--device", "cpu"],
        "methods": ["methods"],
        "list": ["runs", "list", "--runs-dir", str(tmp_path / "runs")],
    }
