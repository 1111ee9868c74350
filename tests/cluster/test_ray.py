"""Runs on a real Ray cluster of two nodes: where they work, what stops them, and a node that is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.models.load import load
from core.results.sweep import read_sweep
from core.runs import launch, watch
from core.runs.artifacts import CHECKPOINT, LOG, METRICS, PARTS, read_metrics
from core.runs.status import read_status
from core.spec.cluster import ClusterSpec
from core.spec.evaluate import EvalSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from tests.runs.waiting import executed, state, until

pytestmark = pytest.mark.slow


def on(cluster: Any, spec: RunSpec) -> RunSpec:
    return replace(spec, cluster=ClusterSpec("ray", cluster.address))


def small(name: str) -> RunSpec:
    return RunSpec(goal="evaluate", name=name)


def measured(folder: Path, texts: tuple[Path, Path], **more: Any) -> RunSpec:
    calibration, evaluation = map(str, texts)
    spec = RunSpec(
        model=ModelSpec(str(folder)), evaluate=EvalSpec(text=evaluation, window=32, tokens=320), **more
    )
    return replace(spec, calibration=replace(spec.calibration, name=calibration, samples=4, length=32))


def test_a_run_works_on_a_node_and_ends_as_one_here(
    runs: Path, ray_cluster: Any, tiny_llama_folder: Path, texts: tuple[Path, Path]
) -> None:
    here = measured(tiny_llama_folder, texts, goal="evaluate")
    there, local = launch.start(runs, on(ray_cluster, here)), launch.start(runs, here)
    until(lambda: {state(there), state(local)} == {"finished"}, 120)
    status = watch.refresh(there)
    assert (status.executor, status.node, status.gpu) == ("ray", os.uname().nodename, "")
    assert watch.refresh(local).node == ""
    ppl = {(path / METRICS).read_text().partition('"ppl": ')[2].partition(",")[0] for path in (there, local)}
    assert len(ppl) == 1


def test_two_runs_work_side_by_side_and_a_third_waits(runs: Path, ray_cluster: Any, small_work: None) -> None:
    both = [launch.start(runs, on(ray_cluster, small(str(number)))) for number in range(2)]
    until(lambda: [executed(path) for path in both] == [1, 1], 120)
    nodes = {(path / "executed").read_text().split()[0] for path in both}
    third = launch.start(runs, on(ray_cluster, small("third")))
    until(lambda: "Waiting for Ray" in watch.refresh(third).message)
    launch.stop(third)
    until(lambda: state(third) == "stopped")
    assert executed(third) == 0
    for path in both:
        (path / "go").touch()
    until(lambda: [state(path) for path in both] == ["finished"] * 2)
    assert len(nodes) == 2


def test_stop_reaches_the_node_and_resume_goes_on(runs: Path, ray_cluster: Any, small_work: None) -> None:
    run_dir = launch.start(runs, on(ray_cluster, small("stops")))
    until(lambda: executed(run_dir) == 1, 90)
    launch.stop(run_dir)
    until(lambda: state(run_dir) == "stopped")
    (run_dir / "go").touch()
    until(lambda: not watch.worker_alive(read_status(run_dir)))
    launch.resume(run_dir)
    until(lambda: state(run_dir) == "finished", 90)
    assert executed(run_dir) == 2


def test_a_lost_node_is_replaced(runs: Path, ray_cluster: Any, small_work: None) -> None:
    both = [launch.start(runs, on(ray_cluster, small(str(number)))) for number in range(2)]
    until(lambda: [executed(path) for path in both] == [1, 1], 120)
    lost = ray_cluster.second
    hit = next(path for path in both if (path / "executed").read_text().split()[0] == lost.node_id)
    ray_cluster.remove_node(lost, allow_graceful=False)
    ray_cluster.second = ray_cluster.another()
    until(lambda: executed(hit) == 2, 120)
    for path in both:
        (path / "go").touch()
    until(lambda: [state(path) for path in both] == ["finished"] * 2)
    assert "was lost" in (hit / LOG).read_text()
    assert [executed(path) for path in both if path != hit] == [1]


def test_ending_what_waits_ends_the_work(runs: Path, ray_cluster: Any, small_work: None) -> None:
    run_dir = launch.start(runs, on(ray_cluster, small("ends")))
    until(lambda: executed(run_dir) == 1, 90)
    worker = int((run_dir / "executed").read_text().split()[1])
    launch.kill(run_dir)
    assert state(run_dir) == "stopped"
    until(lambda: not psutil.pid_exists(worker))
    assert state(run_dir) == "stopped"


def test_whoever_waits_and_dies_leaves_a_run_that_goes_on(
    runs: Path, ray_cluster: Any, small_work: None
) -> None:
    run_dir = launch.start(runs, on(ray_cluster, small("orphan")))
    until(lambda: executed(run_dir) == 1, 90)
    os.kill(read_status(run_dir).pid, signal.SIGKILL)
    until(lambda: state(run_dir) == "crashed")
    (run_dir / "go").touch()
    launch.resume(run_dir)
    until(lambda: state(run_dir) == "finished", 90)


def test_points_of_a_sweep_give_what_they_give_here(
    runs: Path, ray_cluster: Any, tiny_llama_folder: Path, texts: tuple[Path, Path]
) -> None:
    sweep = SweepSpec(("l2", "taylor_first"), (0.2, 0.4), ("local",), ("none",), (0,), (4,))
    spec = measured(tiny_llama_folder, texts, goal="sweep", sweep=sweep)
    there, here = launch.start(runs, on(ray_cluster, spec)), launch.start(runs, spec)
    until(lambda: {state(there), state(here)} == {"finished"}, 240)
    one, other = ([replace(point, seconds=0) for point in read_sweep(path).points] for path in (there, here))
    assert one == other and len(one) == 4
    parts = sorted((there / PARTS).glob("0*"))
    assert len(parts) == 4 and all(read_status(part).node for part in parts)


def test_a_shell_waits_for_its_run_and_prints_what_came_out(
    runs: Path, ray_cluster: Any, tiny_llama_folder: Path, texts: tuple[Path, Path]
) -> None:
    command = [sys.executable, "-m", "core", "evaluate", str(tiny_llama_folder), "--ppl", str(texts[1])]
    command += ["--window", "32", "--tokens", "320", "--runs-dir", str(runs), "--json"]
    where = ["--executor", "ray", "--ray-address", ray_cluster.address]
    done = subprocess.run([*command, *where], cwd=launch.ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ppl"] > 1 and "Measuring the model" in done.stderr
    (run_dir,) = watch.list_runs(runs)
    assert read_status(run_dir).node


def test_benchmarks_side_by_side_give_what_they_give_one_after_the_other(
    runs: Path, ray_cluster: Any, tiny_llama_folder: Path, texts: tuple[Path, Path]
) -> None:
    spec = measured(tiny_llama_folder, texts, goal="evaluate")
    tasks = ("bundled_capitals", "bundled_next_sentence")
    spec = replace(spec, evaluate=replace(spec.evaluate, tasks=tasks, limit=3))
    there, here = launch.start(runs, on(ray_cluster, spec)), launch.start(runs, spec)
    until(lambda: {state(there), state(here)} == {"finished"}, 300)
    one, other = (read_metrics(path) for path in (there, here))
    assert one.keys() == other.keys() and list(one["tasks"]) == list(other["tasks"])
    assert (one["ppl"], one["params"]) == (other["ppl"], other["params"])
    scores = [{name: task["acc"] for name, task in each["tasks"].items()} for each in (one, other)]
    assert scores[0] == scores[1]
    assert {path.name for path in here.iterdir()} <= {path.name for path in there.iterdir()}


def test_a_pruning_run_with_benchmarks_gives_what_it_gives_here(
    runs: Path, ray_cluster: Any, tiny_llama_folder: Path, texts: tuple[Path, Path]
) -> None:
    spec = measured(tiny_llama_folder, texts, prune=PruneSpec("l2", 0.3))
    asked = replace(spec.evaluate, tasks=("bundled_capitals",), limit=3, prompts=(), efficiency=False)
    spec = replace(spec, evaluate=asked)
    there, here = launch.start(runs, on(ray_cluster, spec)), launch.start(runs, spec)
    until(lambda: {state(there), state(here)} == {"finished"}, 300)
    one, other = (read_metrics(path) for path in (there, here))
    assert one.keys() == other.keys() and one["ppl_after"] == other["ppl_after"]
    for key in ("tasks_before", "tasks_after"):
        scores = [{name: task["acc"] for name, task in each[key].items()} for each in (one, other)]
        assert scores[0] == scores[1]
    assert {path.name for path in here.iterdir()} - {CHECKPOINT} <= {path.name for path in there.iterdir()}
    assert load(str(there), device="cpu").plan == load(str(here), device="cpu").plan
    assert len(list((there / PARTS).glob("*/status.json"))) == 3
