"""Runs are created whole or not at all, kept whole, and found again."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import StorageError, UnknownNameError
from core.runs import launch, watch
from core.runs.artifacts import read_spec
from core.runs.paths import absolute
from core.runs.status import Status
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.export import ExportSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from tests.runs.waiting import environment, state


def test_every_file_of_a_spec_is_found_from_elsewhere(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker runs in a folder of its own, and so does who resumes it."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt", "rows.jsonl", "teacher", "adapter"):
        Path(name).touch()
    spec = RunSpec(
        data_dir="copies",
        model=ModelSpec("demo", adapter="adapter"),
        calibration=DataSpec("a.txt"),
        recover=RecoverSpec("distill", "alpaca,rows.jsonl", teacher="teacher", logits="logits", top_k=8),
        evaluate=EvalSpec("a.txt", also=("factbook", "b.txt", "a.txt"), benchmarks_dir="tasks"),
        export=ExportSpec(out="out", tokenizer="a.txt"),
    )
    kept = absolute(spec)
    here = str(tmp_path)
    assert kept.evaluate.texts == (f"{here}/a.txt", "factbook", f"{here}/b.txt"), "each once"
    assert kept.recover.data == f"alpaca,{here}/rows.jsonl"
    paths = (
        kept.data_dir, kept.model.adapter, kept.calibration.name, kept.recover.teacher, kept.recover.logits,
        kept.evaluate.benchmarks_dir, kept.export.out, kept.export.tokenizer,
    )  # fmt: skip
    assert all(path and path.startswith(here) for path in paths), paths
    assert kept.model.source == "demo"


def test_ids_are_readable_and_unique(tmp_path: Path) -> None:
    spec = RunSpec(prune=PruneSpec("taylor_first", 0.2))
    assert launch.run_id(spec, 0.0)[8:] == f"{launch.run_id(spec, 0.0)[8:15]}-taylor_first-20"
    assert launch.run_id(replace(spec, prune=PruneSpec("a/b c", 0.125)), 0.0).endswith("-a_b_c-12.5")
    paths = [launch.create(tmp_path, spec) for _ in range(5)]
    assert len(set(paths)) == 5
    assert set(watch.list_runs(tmp_path)) == set(paths)
    assert all(state(path) == "queued" for path in paths)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".new")]


def test_relative_paths_are_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "text.txt").write_text("x")
    spec = RunSpec(
        model=ModelSpec("model"), calibration=DataSpec("text.txt"), evaluate=EvalSpec(text="text.txt")
    )
    found = read_spec(launch.create(Path("runs"), spec))
    assert found.model.source == str(tmp_path / "model")
    assert found.calibration.name == found.evaluate.text == str(tmp_path / "text.txt")
    assert read_spec(launch.create(Path("runs"), RunSpec())) == RunSpec()


def test_a_runs_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another folder with --runs-dir"):
        launch.create(tmp_path / "file" / "runs", RunSpec())
    assert watch.list_runs(tmp_path / "file" / "runs") == []


def test_a_full_disk_leaves_no_half_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(run_dir: Path, status: Status) -> None:
        raise StorageError("No space left; free some space.")

    monkeypatch.setattr(launch, "write_status", full)
    with pytest.raises(StorageError, match="free some space"):
        launch.create(tmp_path, RunSpec())
    assert list(tmp_path.iterdir()) == []


def test_runs_are_found_by_id_or_its_beginning(tmp_path: Path) -> None:
    run_dir = launch.create(tmp_path, RunSpec())
    assert watch.find(tmp_path, run_dir.name) == watch.find(tmp_path, run_dir.name[:9]) == run_dir
    other = launch.create(tmp_path, RunSpec())
    with pytest.raises(UnknownNameError, match=f"{other.name}"):
        watch.find(tmp_path, run_dir.name[:9])
    with pytest.raises(UnknownNameError, match="Unknown run 'nothing'"):
        watch.find(tmp_path, "nothing")


def test_nothing_here_loads_torch() -> None:
    code = "import sys, core.runs.launch, core.runs.records, core.stages.worker;print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert found.stdout.strip() == "False", found.stderr
