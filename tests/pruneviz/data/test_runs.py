from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from core.errors import ArtifactError
from core.files import write_json
from core.results.scores import SCORES
from core.results.sweep import Point, Sweep, write_sweep
from core.runs.artifacts import GROUPS, METRICS, SAMPLES, SPEC
from core.runs.processes import host, started_at
from core.runs.status import STATUS, Status, write_status
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from pruneviz.data import runs
from tests.pruneviz.samples import MEASURED, graph, make_run


def test_runs_are_listed_newest_first(tmp_path):
    make_run(tmp_path, "a", created=10.0)
    make_run(tmp_path, "b", created=30.0)
    make_run(tmp_path, "c", created=20.0)
    assert [record.id for record in runs.list_runs(tmp_path)] == ["b", "c", "a"]


def test_no_folder_is_no_runs(tmp_path):
    assert runs.list_runs(tmp_path / "missing") == []


@pytest.mark.parametrize("name", [SPEC, STATUS, METRICS])
def test_a_damaged_file_is_said_and_hides_nothing(tmp_path, name):
    run_dir = make_run(tmp_path, "a", metrics=MEASURED)
    (run_dir / name).write_text("{ torn")
    make_run(tmp_path, "b")
    found = {record.id: record for record in runs.list_runs(tmp_path)}
    assert found["a"].state == "damaged" and name in found["a"].damaged
    assert found["b"].state == "finished"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (METRICS, "[]"), (METRICS, '{"ppl_after": "low"}'), (METRICS, '{"tasks_after": [1]}'),
        (STATUS, '{"state": "finished", "created": "soon"}'), (STATUS, '{"progress": NaN}'), (STATUS, "3"),
        (SPEC, "[]"), (SPEC, '{"prune": []}'), (SPEC, '{"model": {"source": 3}}'),
    ],
)  # fmt: skip
def test_wrong_types_damage_their_own_run_alone(tmp_path, name, text):
    run_dir = make_run(tmp_path, "a", metrics=MEASURED)
    (run_dir / name).write_text(text)
    make_run(tmp_path, "b", metrics=MEASURED)
    records = {record.id: record for record in runs.list_runs(tmp_path)}
    assert records["a"].state == "damaged" and name in records["a"].damaged
    assert records["b"].state == "finished" and records["b"].metrics == MEASURED


def test_a_run_whose_worker_is_gone_has_crashed(tmp_path):
    make_run(
        tmp_path, "a", state="running", pid=2**22 - 1, pid_started=1.0, heartbeat=time.time(), ended=None
    )
    assert runs.list_runs(tmp_path)[0].state == "crashed"


def test_a_run_that_has_ended_is_read_again_only_when_a_file_of_it_has_changed(tmp_path, monkeypatch):
    run_dir = make_run(tmp_path, "a", metrics=MEASURED)
    first = runs.read_run(run_dir)
    monkeypatch.setattr("pruneviz.data.runs.read_spec", lambda path: pytest.fail("read again"))
    assert runs.read_run(run_dir) is first
    monkeypatch.undo()
    write_json(run_dir / METRICS, {**MEASURED, "ppl_after": 60.2})
    assert runs.read_run(run_dir).metrics["ppl_after"] == 60.2
    write_status(run_dir, Status(state="queued", created=1.0))
    assert runs.read_run(run_dir).state == "queued", "it was resumed"
    (run_dir / METRICS).unlink()
    assert runs.read_run(run_dir).metrics == {}


def test_a_live_run_is_found_by_model_and_goal(tmp_path):
    alive = {
        "pid": os.getpid(),
        "pid_started": started_at(os.getpid()),
        "host": host(),
        "heartbeat": time.time(),
    }
    spec = RunSpec(goal="explore", model=ModelSpec("demo"))
    make_run(tmp_path, "a", spec, state="running", ended=None, **alive)
    found = runs.live_run(tmp_path, "demo")
    assert found is not None and found.id == "a"
    assert runs.live_run(tmp_path, "demo", goal="prune") is None
    assert runs.live_run(tmp_path, "other") is None


def test_latest_is_the_newest_run_of_the_model_that_has_the_artifact(tmp_path):
    make_run(tmp_path, "old", created=1.0, with_graph=True)
    make_run(tmp_path, "new", created=2.0, with_graph=True)
    make_run(tmp_path, "without", created=3.0)
    make_run(tmp_path, "other", RunSpec(model=ModelSpec("someone/else")), created=4.0, with_graph=True)
    assert runs.latest(runs.list_runs(tmp_path), "demo", GROUPS) == tmp_path / "new"
    assert runs.latest(runs.list_runs(tmp_path), "demo", SCORES) is None


def test_one_folder_named_in_two_ways_is_one_model(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert runs.source_key("model") == runs.source_key(str(tmp_path / "model"))
    assert runs.source_key("demo") == "demo"


def test_a_name_cannot_lead_out_of_the_folder(tmp_path):
    make_run(tmp_path / "runs", "a")
    make_run(tmp_path, "outside")
    assert runs.find(tmp_path / "runs", "a") is not None
    assert runs.find(tmp_path / "runs", "../outside") is None
    assert runs.find(tmp_path / "runs", "") is None


def _share(run_dir, **status):
    record = runs.read_run(run_dir)
    return runs.share_done(replace(record, status=Status(**status)))


def test_share_done_counts_stages_alike(tmp_path):
    stages, run = ["a", "b", "c", "d"], make_run(tmp_path, "a")
    assert _share(run, state="running", stage="c", stages=stages, progress=0.5) == 0.625
    assert _share(run, state="finished", stage="d", stages=stages) == 1.0
    assert _share(run) == 0.0


def test_share_done_of_a_sweep_counts_its_points(tmp_path):
    """Before the first one all stages but the last may be over, and each pass goes through them again."""
    run = make_run(tmp_path, "a", RunSpec(goal="sweep", sweep=SweepSpec(("l2",), (0.1, 0.2), seeds=(0, 1))))
    late = {"state": "running", "stage": "sweep", "stages": ["load", "score", "sweep"], "progress": 0.5}
    assert _share(run, **late) == 0.0 and runs.points_done(runs.read_run(run)) == (0, 4)
    point = Point("l2", 0.1, "local", "none", 0, 16)
    write_sweep(run, Sweep(20.0, 10, 10, "bundled", 256, 4096, "bundled", 4, (point,)))
    assert _share(run, **late) == 0.25 and _share(run, state="finished") == 1.0
    assert runs.points_done(runs.read_run(make_run(tmp_path, "b"))) is None


def test_a_changed_graph_is_read_again(tmp_path):
    run_dir = make_run(tmp_path, "a", with_graph=True)
    assert runs.graph_of(run_dir).model == "tiny"
    path = run_dir / GROUPS
    path.write_text(path.read_text().replace('"model": "tiny"', '"model": "other"'))
    os.utime(path, ns=(1, 1))
    assert runs.graph_of(run_dir).model == "other"


def test_damaged_samples_raise(tmp_path):
    run_dir = make_run(tmp_path, "a")
    assert runs.read_samples(run_dir) == []
    (run_dir / SAMPLES).write_text("[")
    with pytest.raises(ArtifactError):
        runs.read_samples(run_dir)


def test_the_graph_is_read_again_only_when_the_file_changes(tmp_path):
    run = make_run(tmp_path, "a", with_graph=True)
    first = runs.graph_of(run)
    assert first == graph() and runs.graph_of(run) is first
    (run / GROUPS).write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        runs.graph_of(run)
    with pytest.raises(ArtifactError, match="not there"):
        runs.graph_of(tmp_path)
