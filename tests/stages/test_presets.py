"""The presets of a method that trains, each as one command that is scaled down: every stage happens."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from core.cli.app import main
from core.files import read_json
from core.models.saved import from_pretrained
from core.runs.artifacts import METRICS, MODEL, read_plan, read_spec
from core.runs.events import EventReader
from core.runs.status import read_status
from core.spec.nuteprune import PRESETS

#: What every preset is scaled down by; all else is as it says.
SMALL = {"steps": 8, "batch": 2, "accumulate": 1, "held": 2, "precision": "no", "measure_every": 4}


@pytest.fixture(scope="module")
def instructions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows as Alpaca has them, in words that the tiny tokenizer has."""
    path = tmp_path_factory.mktemp("data") / "alpaca.jsonl"
    row = {"instruction": "the word", "input": "", "output": "a word and the word"}
    path.write_text("".join(json.dumps(row | {"input": f"{n} words"}) + "\n" for n in range(24)))
    return path


def prune(preset: str, model: Path, text: Path, data: Path, runs_dir: Path, *more: str) -> int:
    given = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    tuned = ["--recover-data", str(data), "--recover-length", "256", "--batch", "4"]
    return main(
        ["prune", str(model), "--method", "nuteprune", "--preset", preset, *given,
         "--calibration", str(text), "--samples", "8", "--length", "16", *(tuned if preset != "demo" else []),
         "--no-efficiency", "--prompt", "", "--device", "cpu", "--runs-dir", str(runs_dir), "--json", *more]
    )  # fmt: skip


@pytest.mark.parametrize("preset", [*PRESETS])
def test_a_preset_runs_from_the_first_stage_to_the_last(
    preset: str,
    tiny_llama_folder: Path,
    texts: tuple[Path, Path],
    instructions: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measured = ["--ppl", str(texts[1]), "--window", "16", "--tokens", "64"]
    assert prune(preset, tiny_llama_folder, texts[0], instructions, tmp_path, *measured) == 0
    run_dir = Path(json.loads(capsys.readouterr().out)["run_dir"])
    spec, metrics, plan = read_spec(run_dir), read_json(run_dir / METRICS), read_plan(run_dir)
    paper = preset != "demo"
    stages = [
        "load",
        "graph",
        "baseline",
        *([] if paper else ["capture", "score"]),
        "train",
        "plan",
        "surgery",
    ]
    stages += ["measure", "recover"] if paper else []
    assert list(read_status(run_dir).stages) == [*stages, "evaluate", "export"]
    assert plan.sparsity == pytest.approx(PRESETS[preset].get("prune.sparsity", 0.2), abs=0.03)
    names = {
        event.data["name"] for event in EventReader(run_dir / "events.jsonl").read() if event.type == "metric"
    }
    assert ("train.layer_loss" in names) == paper and ("recover.loss" in names) == paper
    assert ("residual_channel" in spec.prune.kinds) == paper
    if paper:
        assert metrics["recover_data"] == "alpaca.jsonl" and metrics["recover_steps"] == math.ceil(3 * 22 / 4)
        assert metrics["ppl_recovered"] == metrics["ppl_after"] and metrics["ppl_pruned"] > 0
    model = from_pretrained(run_dir / MODEL)
    assert sum(parameter.numel() for parameter in model.parameters()) == metrics["params_after"]


def test_fine_tuning_can_be_left_out(
    tiny_llama_folder: Path,
    texts: tuple[Path, Path],
    instructions: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The rows of the paper's tables without it."""
    given = ("demo", tiny_llama_folder, texts[0], instructions, tmp_path, "--preset", "paper-7b-50")
    measured = ["--ppl", str(texts[1]), "--window", "16", "--tokens", "64", "--recover", "none"]
    assert prune(*given, *measured) == 0
    run_dir = Path(json.loads(capsys.readouterr().out)["run_dir"])
    assert read_spec(run_dir).recover.method == "none" and "recover" not in read_status(run_dir).stages
