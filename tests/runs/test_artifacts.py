"""What lies in a run directory: written beside and moved into place, and never trusted when read."""

from __future__ import annotations

import errno
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from core.errors import ArtifactError, StorageError
from core.files import write_json, write_text
from core.plan.records import Cost, PruningPlan
from core.results.scores import SCORES, read_scores, write_scores
from core.results.sensitivity import SENSITIVITY, Sensitivity, read_sensitivity, write_sensitivity
from core.results.similarity import SIMILARITY, Similarity, read_similarity, write_similarity
from core.runs.artifacts import GROUPS, PLAN, SPEC, read_graph, read_plan, read_spec
from core.runs.status import STATUS, Status, read_status, write_status
from core.spec.run import RunSpec


def test_status_round_trip(tmp_path: Path) -> None:
    status = Status(
        "failed",
        "load",
        ["load"],
        {"load": "Read the model"},
        0.5,
        "x",
        3,
        1.5,
        "here",
        2.0,
        error={"type": "T"},
    )
    write_status(tmp_path, status)
    assert read_status(tmp_path) == status


def test_arrays_round_trip(tmp_path: Path) -> None:
    similarity = Similarity(np.arange(8, dtype=np.float32).reshape(2, 2, 2), [0, 4], 7, "speeches")
    write_similarity(tmp_path, similarity)
    read = read_similarity(tmp_path)
    assert (read.layers, read.tokens, read.text) == ([0, 4], 7, "speeches")
    np.testing.assert_array_equal(read.divergence, similarity.divergence)
    scores = {"l2": {"L00.ffn_channel": np.ones(3, np.float32)}, "l1": {"a/b": np.zeros(2, np.float32)}}
    write_scores(tmp_path, scores)
    found = read_scores(tmp_path)
    assert list(found) == ["l2", "l1"]
    np.testing.assert_array_equal(found["l1"]["a/b"], scores["l1"]["a/b"])


def test_sensitivity_spec_and_plan_round_trip(tmp_path: Path) -> None:
    sensitivity = Sensitivity(9.5, "t", 8, 64, "l2", [{"layer": 0, "kind": "ffn", "ratio": 0.5, "ppl": 10.0}])
    write_sensitivity(tmp_path, sensitivity)
    assert read_sensitivity(tmp_path) == sensitivity
    older = {name: value for name, value in asdict(sensitivity).items() if name != "baseline_stderr"}
    write_json(tmp_path / SENSITIVITY, older)
    assert read_sensitivity(tmp_path) == sensitivity, "written before errors were kept"
    write_text(tmp_path / SPEC, RunSpec(seed=4).to_json())
    assert read_spec(tmp_path) == RunSpec(seed=4)
    plan = PruningPlan({"g": (1, 2)}, before=Cost(10, 5, 2), after=Cost(8, 4, 2), params_in_scope=4)
    write_text(tmp_path / PLAN, plan.to_json())
    assert read_plan(tmp_path) == plan


READERS = [
    (STATUS, read_status),
    (SPEC, read_spec),
    (PLAN, read_plan),
    (GROUPS, read_graph),
    (SIMILARITY, read_similarity),
    (SCORES, read_scores),
    (SENSITIVITY, read_sensitivity),
]


@pytest.mark.parametrize(("name", "read"), READERS)
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"3", b'{"x": 1}', b"\xff\xfe\x00\x01" * 8])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, read: object, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"damaged"):
        read(tmp_path)  # type: ignore[operator]
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize(("name", "read"), READERS)
def test_a_missing_file_is_named(tmp_path: Path, name: str, read: object) -> None:
    with pytest.raises(ArtifactError, match=f"{name} is not there"):
        read(tmp_path)  # type: ignore[operator]


@pytest.mark.parametrize("change", [{"state": "dancing"}, {"heartbeat": "soon"}, {"progress": None}])
def test_a_status_with_impossible_values_is_damaged(tmp_path: Path, change: dict[str, object]) -> None:
    write_json(tmp_path / STATUS, {**vars(Status()), **change})
    with pytest.raises(ArtifactError, match="damaged"):
        read_status(tmp_path)


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"old": 1})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StorageError, match=r"metrics.json cannot be written: No space left.*free some space"):
        write_json(path, {"new": 2})
    monkeypatch.undo()
    assert json.loads(path.read_text()) == {"old": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["metrics.json"]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another folder with --runs-dir"):
        write_json(tmp_path / "file" / "metrics.json", {})


def test_arrays_on_a_full_disk_leave_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(arrays: object, path: Path, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("core.files.save_file", full)
    with pytest.raises(StorageError, match="free some space"):
        write_scores(tmp_path, {"l2": {"g": np.ones(2, np.float32)}})
    assert list(tmp_path.iterdir()) == []
