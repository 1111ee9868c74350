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
from core.spec.nuteprune_presets import PRESETS

#: What every preset is scaled down by; all else is as it says.
SMALL = {"steps": 8, "batch": 2, "accumulate": 1, "held": 2, "precision": "no", "measure_every": 4}


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory, texts: tuple[Path, Path]) -> Path:
    """A folder with C4 and Alpaca as they are laid out, in words that the tiny tokenizer has."""
    folder = tmp_path_factory.mktemp("data")
    row = {"instruction": "the word", "input": "", "output": "a word and the word"}
    rows = [json.dumps(row | {"input": f"{n} words"}) for n in range(24)]
    (folder / "alpaca.jsonl").write_text("\n".join(rows))
    (folder / "c4.jsonl").write_text(json.dumps({"text": texts[0].read_text(), "url": "", "timestamp": ""}))
    return folder


def prune(preset: str, model: Path, text: Path, copies: Path, runs_dir: Path, *more: str) -> int:
    given = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    tuned = ["--recover-length", "256", "--batch", "4"] if preset.startswith("paper") and not more else []
    tuned += ["--recover-data", str(copies / "alpaca.jsonl")] if preset == "demo-distill" else []
    return main(
        ["prune", str(model), "--method", "nuteprune", "--preset", preset, *given, *tuned, *more,
         "--samples", "8", "--length", "16", "--data-dir", str(copies), "--ppl", str(text), "--window", "16",
         "--tokens", "64", "--ppl-also", "", "--no-efficiency", "--prompt", "", "--device", "cpu",
         "--runs-dir", str(runs_dir), "--json"]
    )  # fmt: skip


@pytest.mark.parametrize("preset", [*PRESETS])
def test_a_preset_runs_from_the_first_stage_to_the_last(
    preset: str,
    tiny_llama_folder: Path,
    texts: tuple[Path, Path],
    copies: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert prune(preset, tiny_llama_folder, texts[1], copies, tmp_path) == 0
    run_dir = Path(json.loads(capsys.readouterr().out)["run_dir"])
    spec, metrics, plan = read_spec(run_dir), read_json(run_dir / METRICS), read_plan(run_dir)
    paper, trained = preset.startswith("paper"), preset != "demo"
    stages = [
        "load",
        "graph",
        "baseline",
        *([] if paper else ["capture", "score"]),
        "train",
        "plan",
        "surgery",
    ]
    stages += ["measure", "recover"] if trained else []
    assert list(read_status(run_dir).stages) == [*stages, "evaluate", "export"]
    assert plan.sparsity == pytest.approx(PRESETS[preset].get("prune.sparsity", 0.2), abs=0.03)
    names = {
        event.data["name"] for event in EventReader(run_dir / "events.jsonl").read() if event.type == "metric"
    }
    assert ("train.layer_loss" in names) == paper and ("recover.loss" in names) == trained
    assert ("recover.kl" in names) == (preset == "demo-distill")
    assert ("residual_channel" in spec.prune.kinds) == paper
    if paper:
        assert "Alpaca" in metrics["recover_data"] and "C4" in metrics["calibration_text"]
        assert metrics["recover_steps"] == math.ceil(3 * 22 / 4)
        assert metrics["ppl_recovered"] == metrics["ppl_after"] and metrics["ppl_pruned"] > 0
    model = from_pretrained(run_dir / MODEL)
    assert sum(parameter.numel() for parameter in model.parameters()) == metrics["params_after"]


def test_fine_tuning_can_be_left_out(
    tiny_llama_folder: Path,
    texts: tuple[Path, Path],
    copies: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The rows of the paper's tables without it."""
    assert prune("paper-7b-50", tiny_llama_folder, texts[1], copies, tmp_path, "--recover", "none") == 0
    run_dir = Path(json.loads(capsys.readouterr().out)["run_dir"])
    assert read_spec(run_dir).recover.method == "none" and "recover" not in read_status(run_dir).stages


def test_the_paper_s_run_can_be_taught_instead_and_scored(
    tiny_llama_folder: Path,
    texts: tuple[Path, Path],
    copies: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Pruning, distillation in the place of fine-tuning, with a control: one command."""
    more = ("--recover", "distill", "--recover-length", "256", "--batch", "4", "--epochs", "1", "--control")
    assert prune("paper-7b-50", tiny_llama_folder, texts[1], copies, tmp_path, *more) == 0
    run_dir = Path(json.loads(capsys.readouterr().out)["run_dir"])
    metrics = read_json(run_dir / METRICS)
    assert metrics["recover_method"] == "distill" and metrics["recover_held_kl_after"] >= 0
    assert list(read_status(run_dir).stages)[-5:] == ["measure", "recover", "control", "evaluate", "export"]
