"""What a run is split into, and how the results of its parts become those of one run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.cluster import placed
from core.cluster.executor import Outcome
from core.cluster.scatter import scatter, splits
from core.cluster.split_evaluate import SplitEvaluate
from core.cluster.split_sweep import seed
from core.errors import LaunchError
from core.files import write_json, write_text
from core.results.sweep import Point, Sweep, planned, read_sweep, write_sweep
from core.results.tasks import BenchmarkResult, TaskResult, keep_benchmarks, read_benchmarks
from core.runs import launch
from core.runs.artifacts import EVENTS, METRICS, MODEL, PARTS, PLAN, STOP, read_metrics, read_spec
from core.runs.events import EventReader
from core.runs.recorder import Recorder
from core.runs.status import read_status
from core.spec.cluster import ClusterSpec
from core.spec.evaluate import EvalSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from core.stages import worker
from tests.cluster.test_placed import Imagined

SWEEP = RunSpec(
    goal="sweep",
    sweep=SweepSpec(("l2",), (0.1, 0.2, 0.3), ("local",), ("none",), (0, 1), (4,)),
    cluster=ClusterSpec("ray", "a:1"),
)
DENSE = {"ppl": 9.0, "params": 10, "macs": 10, "text": "t", "window": 8, "tokens": 8, "calibration": "c"}


class AtOnce(Imagined):
    """Does a point when it is handed out; those in `fails` fail."""

    fails: tuple[str, ...] = ()

    def submit(self, call):  # type: ignore[no-untyped-def]
        task, run_dir = Imagined(), Path(call["run_dir"])
        self.calls.append(call)
        worker.adopt_for(run_dir, tuple(call["keeper"]))
        seed(run_dir)
        (point,) = planned(read_spec(run_dir))
        with Recorder(run_dir, kept=True) as recorder:
            if run_dir.name in self.fails:
                recorder.end("failed", "the card is too small")
            else:
                write_sweep(
                    run_dir, Sweep(**DENSE, planned=1, points=(replace(point, ppl=1 + point.target),))
                )
                recorder.end("finished")
        task.ended = Outcome("done")
        return task

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> AtOnce:
    made = AtOnce()
    monkeypatch.setattr("core.cluster.keeper.reach", lambda *_: made)
    monkeypatch.setattr(placed, "versions", dict)
    return made


def done_by(run_dir: Path) -> list[Point]:
    worker.execute(run_dir, job=lambda folder, recorder: scatter(folder, recorder, "module"))
    return list(read_sweep(run_dir).points)


def test_every_point_is_a_part_and_they_come_together_in_order(tmp_path: Path, cluster: AtOnce) -> None:
    run_dir = launch.create(tmp_path, SWEEP)
    points = done_by(run_dir)
    assert [point.key for point in points] == [point.key for point in planned(SWEEP)] and len(points) == 6
    assert all(point.ppl == 1 + point.target for point in points) and len(cluster.calls) == 6
    parts = [read_spec(path) for path in sorted((run_dir / PARTS).glob("0*"))]
    assert {part.sweep.points for part in parts} == {1} and all(part.cluster.here for part in parts)
    assert read_status(run_dir).state == "finished" and read_sweep(run_dir).planned == 6


def test_a_point_that_fails_holds_up_no_other_and_is_tried_again(
    tmp_path: Path, cluster: AtOnce, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.fails = ("0002",)
    run_dir = launch.create(tmp_path, SWEEP)
    with pytest.raises(LaunchError, match=r"1 of 6 points failed, .*the card is too small"):
        done_by(run_dir)
    assert len(read_sweep(run_dir).points) == 5 and read_status(run_dir).state == "failed"
    cluster.fails, cluster.calls = (), []
    monkeypatch.setattr(launch, "start_next", lambda runs_dir: None)
    launch.resume(run_dir)
    assert len(done_by(run_dir)) == 6 and len(cluster.calls) == 1
    assert not (run_dir / STOP).exists()


def test_a_measurement_is_split_by_its_benchmarks(tmp_path: Path) -> None:
    asked = EvalSpec(tasks=("arc_easy", "a/b"), also=("factbook",), window=64)
    spec = RunSpec(goal="evaluate", evaluate=asked, cluster=ClusterSpec("ray", "a:1"))
    assert splits(spec) and splits(SWEEP)
    assert not splits(replace(spec, evaluate=replace(asked, tasks=("arc_easy",))))
    with Recorder(launch.create(tmp_path, spec, mine=True)) as recorder:
        rest, *others = SplitEvaluate(tmp_path, spec, recorder).left()
    assert rest.spec.evaluate == replace(asked, tasks=()) and rest.spec.cluster.here
    assert [part.name for part in others] == ["0001-arc_easy", "0002-a_b"]
    first = others[0].spec.evaluate
    assert (first.tasks, first.tokens, first.also, first.efficiency) == (("arc_easy",), 64, (), False)


PRUNE = RunSpec(evaluate=EvalSpec(tasks=("arc_easy", "boolq")), cluster=ClusterSpec("ray", "a:1"))


class OfARun(AtOnce):
    """Does a pruning run, and scores what it is asked to."""

    def submit(self, call):  # type: ignore[no-untyped-def]
        task, run_dir = Imagined(), Path(call["run_dir"])
        self.calls.append(call)
        worker.adopt_for(run_dir, tuple(call["keeper"]))
        spec = read_spec(run_dir)
        with Recorder(run_dir, kept=True) as recorder:
            if spec.goal == "prune":
                (run_dir / MODEL).mkdir()
                write_text(run_dir / PLAN, "{}")
                write_json(run_dir / METRICS, {"ppl_after": 3.0})
                recorder.metric("ppl_after", 0, 3.0)
            else:
                (name,) = spec.evaluate.tasks
                value = 0.5 if spec.model.source == "demo" else 0.4
                scored = TaskResult(name, name, {"acc": value}, {}, "acc", 2, "1", 0, None, "none", "hub")
                keep_benchmarks(run_dir, "model", BenchmarkResult({name: scored}))
            recorder.end("finished")
        task.ended = Outcome("done")
        return task


def test_a_pruning_run_has_its_benchmarks_scored_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = OfARun()
    monkeypatch.setattr("core.cluster.keeper.reach", lambda *_: cluster)
    monkeypatch.setattr(placed, "versions", dict)
    run_dir = launch.create(tmp_path, PRUNE)
    worker.execute(run_dir, job=lambda folder, recorder: scatter(folder, recorder, "module"))
    names = [Path(call["run_dir"]).name for call in cluster.calls]
    assert names == [
        "0000-run", "1001-dense-arc_easy", "1002-dense-boolq", "2001-pruned-arc_easy", "2002-pruned-boolq"
    ]  # fmt: skip
    metrics = read_metrics(run_dir)
    assert metrics["ppl_after"] == 3.0 and list(metrics["tasks_before"]) == ["arc_easy", "boolq"]
    assert [metrics[key]["boolq"]["acc"] for key in ("tasks_before", "tasks_after")] == [0.5, 0.4]
    assert set(read_benchmarks(run_dir)) == {"dense", "pruned"}
    assert (run_dir / MODEL).is_dir() and (run_dir / PLAN).read_text() == "{}"
    told = {event.data["name"] for event in EventReader(run_dir / EVENTS).read() if event.type == "metric"}
    scores = {f"task.{side}.{task}" for side in ("dense", "pruned") for task in ("arc_easy", "boolq")}
    assert told == {"ppl_after", *scores}
    pruned = read_spec(run_dir / PARTS / "2001-pruned-arc_easy")
    assert pruned.goal == "evaluate" and pruned.model.source == str(run_dir / PARTS / "0000-run")


def test_where_a_cut_model_is_trained_the_run_scores_it_itself() -> None:
    assert splits(PRUNE) and not splits(replace(PRUNE, evaluate=EvalSpec()))
    assert not splits(replace(PRUNE, recover=RecoverSpec("lora")))
