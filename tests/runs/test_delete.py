"""A run that has ended can be removed; nothing that is at work, waits, or is needed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from core.cli.app import main
from core.errors import InputError, StorageError
from core.runs import launch, watch
from core.runs.delete import delete, readers, size_of
from core.runs.status import read_status, write_status
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from tests.runs.waiting import executed, named, until


def ended(runs: Path, spec: RunSpec | None = None) -> Path:
    """A run that was stopped before it started, with a model of a kibibyte."""
    run_dir = launch.create(runs, spec or RunSpec())
    launch.stop(run_dir)
    (run_dir / "model").mkdir()
    (run_dir / "model" / "model.safetensors").write_bytes(bytes(1024))
    return run_dir


def test_an_ended_run_goes_with_all_its_files(tmp_path: Path) -> None:
    run_dir, other = ended(tmp_path), ended(tmp_path)
    outside = tmp_path.parent / "outside.txt"
    outside.write_text("stays")
    (run_dir / "link").symlink_to(outside)
    held = size_of(run_dir)
    assert held > 1024 and delete(run_dir) == held
    assert watch.list_runs(tmp_path) == [other] and outside.read_text() == "stays"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".gone")] == []


def test_what_waits_or_is_at_work_stays(runs: Path) -> None:
    run_dir, waiting = launch.start(runs, named("wait")), launch.create(runs, RunSpec())
    until(lambda: executed(run_dir) == 1)
    for each in (run_dir, waiting):
        with pytest.raises(InputError, match="stop it first"):
            delete(each)
        assert each.is_dir()
    launch.stop(run_dir)
    until(lambda: read_status(run_dir).state == "stopped")


def test_what_cannot_be_removed_is_said_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = ended(tmp_path)

    def refuse(folder: Path, ignore_errors: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("core.runs.delete.shutil.rmtree", refuse)
    with pytest.raises(StorageError, match=r"is deleted, but .* are left in .*gone-.*: Permission denied"):
        delete(run_dir)
    assert watch.list_runs(tmp_path) == []


def test_two_that_delete_at_once_do_not_blame_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, remove = ended(tmp_path), shutil.rmtree

    def swept(folder: Path, ignore_errors: bool = False) -> None:
        remove(folder)
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("core.runs.delete.shutil.rmtree", swept)
    assert delete(run_dir) > 1024


def test_an_adapter_that_a_run_left_is_needed_by_who_merges_it(tmp_path: Path) -> None:
    first = ended(tmp_path)
    second = launch.create(tmp_path, RunSpec(model=ModelSpec("demo", adapter=str(first / "adapter"))))
    assert readers(first) == [second.name]


def test_a_model_that_a_waiting_run_needs_stays(tmp_path: Path) -> None:
    first = ended(tmp_path)
    second = launch.create(tmp_path, RunSpec(model=ModelSpec(str(first))))
    assert readers(first) == [second.name] and readers(second) == []
    with pytest.raises(InputError, match=f"{second.name} is queued and needs the model of {first.name}"):
        delete(first)
    launch.stop(second)
    delete(first)
    assert watch.list_runs(tmp_path) == [second]


def test_what_was_left_half_gone_goes_with_the_next(tmp_path: Path) -> None:
    half = tmp_path / ".gone-1"
    half.mkdir()
    (half / "plan.json").write_text("{}")
    delete(ended(tmp_path))
    assert not half.exists()


def test_a_damaged_run_can_be_deleted(tmp_path: Path) -> None:
    run_dir = ended(tmp_path)
    write_status(run_dir, replace(read_status(run_dir), state="finished"))
    (run_dir / "spec.json").write_text("{")
    (run_dir / "status.json").write_text("{")
    assert watch.read(run_dir).state == watch.DAMAGED and delete(run_dir) > 0


def test_a_shell_has_to_say_yes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = ended(tmp_path)
    asked = ["runs", "delete", run_dir.name, "--runs-dir", str(tmp_path)]
    assert main(asked) == 2 and run_dir.is_dir()
    said = capsys.readouterr().err
    assert "KiB" in said and "--yes" in said
    assert main([*asked, "--yes"]) == 0 and not run_dir.exists()
    assert "freed" in capsys.readouterr().out
    assert main(asked) == 2
