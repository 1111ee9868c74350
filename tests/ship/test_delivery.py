"""An export as a run: what it leaves, and what it refuses before anything is written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import PruneError, SpecError
from core.models import saved
from core.models.card_head import read_head
from core.results.exported import Exported, read_exported
from core.runs import launch
from core.runs.artifacts import read_spec
from core.runs.status import read_status
from core.ship import delivery, hf
from core.ship.delivery import deliver
from core.ship.records import Parcel, Written
from core.ship.routes import ROUTES
from core.spec.export import ExportSpec
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from core.stages.worker import execute
from tests.cli.calls import answer, refused
from tests.stages.steps import again


@pytest.fixture
def pruned(asked: dict[str, list[str]], capsys: pytest.CaptureFixture[str]) -> str:
    """The directory of a pruning run."""
    return str(answer(capsys, [*asked["prune"], "--ppl-also", ""])["run_dir"])


def test_an_export_is_a_run_that_leaves_a_folder(
    pruned: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = ["--runs-dir", str(tmp_path / "runs")]
    shown = answer(capsys, ["export", pruned, "--to", "hf", *runs])
    record = read_exported(Path(shown["run_dir"]))
    assert record.folder == f"{shown['run_dir']}/hf" and "export-hf" in shown["run_dir"]
    assert record.files["config.json"] > 0 and shown["bytes"] == sum(record.files.values())
    before, after = (saved.load(Path(folder))[0] for folder in (f"{pruned}/model", record.folder))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert read_spec(Path(shown["run_dir"])).extra["versions"]
    assert "AutoTokenizer" in record.use[0]
    space: dict[str, Any] = {}
    exec("\n".join(record.use), space)  # what is offered to copy
    assert space["tokens"].shape[1] == space["inputs"].input_ids.shape[1] + 24
    heads = [read_head(Path(folder)) for folder in (f"{pruned}/model", record.folder)]
    assert heads[0] == heads[1] and heads[0]["model-index"][0]["results"][0]["metrics"][0]["args"]["stderr"]


def test_a_folder_of_ones_own_is_written(
    pruned: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "there" / "mine"
    shown = answer(capsys, ["export", pruned, "--out", str(out), "--runs-dir", str(tmp_path / "runs")])
    assert shown["folder"] == str(out) and (out / "config.json").is_file()


def test_bad_input_is_one_line_before_anything_is_written(
    pruned: str,
    tiny_llama_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs, here = tmp_path / "runs", tmp_path / "here"
    here.mkdir()
    count = len(list(runs.iterdir()))

    def said(*words: str) -> str:
        return refused(capsys, ["export", *words, "--runs-dir", str(runs)])

    assert f"--out {here} is there already" in said(pruned, "--out", str(here))
    assert "is not pruned" in said(str(tiny_llama_folder))
    assert "Unknown format 'ggfu'. Did you mean 'gguf'?" in said(pruned, "--to", "ggfu")
    without = runs / "without"
    shutil.copytree(pruned, without, ignore=shutil.ignore_patterns("model"))
    assert "has left no model (yet); give a finished pruning run" in said(str(without))
    shutil.rmtree(without)
    usage: Any = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    assert "No space left on device; free some space" in said(pruned, "--out", str(tmp_path / "new"))
    assert len(list(runs.iterdir())) == count and not (tmp_path / "new").exists()


def test_of_two_exports_into_one_folder_the_second_does_not_replace_the_first(
    pruned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "mine"
    spec = RunSpec(goal="export", model=ModelSpec(pruned), export=ExportSpec(to="hf", out=str(out)))
    real = hf.write

    def slow(parcel: Parcel) -> Written:
        out.mkdir()
        (out / "of another").touch()
        return real(parcel)

    monkeypatch.setitem(ROUTES, "hf", replace(ROUTES["hf"], write=slow))
    with pytest.raises(SpecError, match="mine is there already"):
        deliver(spec, out, print, lambda *_: None, lambda _: None)
    assert [path.name for path in out.iterdir()] == ["of another"]
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".mine")] == []


def test_who_is_gone_after_the_folder_appeared_goes_on_with_it(
    pruned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "mine"
    spec = RunSpec(goal="export", model=ModelSpec(pruned), export=ExportSpec(to="hf", out=str(out)))
    run_dir = launch.create(tmp_path / "runs", spec, mine=True)

    def gone(*what: Any) -> Exported:
        deliver(*what)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(delivery, "deliver", gone)
        with pytest.raises((KeyboardInterrupt, PruneError)):
            execute(run_dir)
    first = (out / "config.json").stat()
    again(run_dir)
    assert read_status(run_dir).state == "finished" and read_exported(run_dir).folder == str(out)
    assert (out / "config.json").stat().st_mtime_ns == first.st_mtime_ns
