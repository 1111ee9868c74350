"""Several processes train as one: the same plan and weights, and an end for all of them when one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from core.cli.app import main
from core.errors import SpecError
from core.models.saved import from_pretrained
from core.recover.team import devices
from core.runs import company, launch
from core.runs.artifacts import LOG, MODEL, STOP, read_plan
from core.runs.events import Event, EventReader, metric_series
from core.runs.processes import alive
from core.runs.status import Status, read_status, write_status
from core.runs.watch import list_runs
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from core.stages import check, together
from core.stages.worker import execute
from tests.browser.driver import free_port
from tests.runs.waiting import until
from tests.stages.test_nuteprune import curves, options, started
from tests.stages.test_nuteprune import spec as spec

#: The second process of a launch, which does something at one of its steps, counted from 1.
MISBEHAVING = """
import math, os, signal, sys
from core.cli.app import main
from core.nuteprune import training
original, calls = training.distillation, []
def distillation(*args):
    calls.append(1)
    return original(*args) * ({what} if len(calls) == {step} else 1.0)
training.distillation = distillation
sys.exit(main([]))
"""
PLAIN = "import sys; from core.cli.app import main; sys.exit(main([]))"
KILLED = MISBEHAVING.format(what="os.kill(os.getpid(), signal.SIGKILL)", step=8)
NO_NUMBER = MISBEHAVING.format(what="math.nan", step=2)
TRAIN = RecoverSpec(
    "lora", learning_rate=1e-2, warmup=1, steps=6, batch=4, micro_batch=2, length=16, eval_every=2, held=4,
    precision="no", dropout=0.0, patience=3,
)  # fmt: skip
Launch = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launch]:
    """Starts the second process of a launch of two, whose first is this one: `main` here is met there."""
    processes: list[subprocess.Popen[bytes]] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def start(code: str = PLAIN) -> subprocess.Popen[bytes]:
        both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        for name, value in {**both, "RANK": "0"}.items():
            monkeypatch.setenv(name, value)
        given = {**os.environ, **both, "RANK": "1", "PYTHONPATH": str(launch.ROOT)}
        processes.append(subprocess.Popen([sys.executable, "-c", code], env=given, stderr=subprocess.PIPE))
        return processes[-1]

    yield start
    company._joined.clear()
    together._met.clear()
    for number, handler in before.items():
        signal.signal(number, handler)
    for process in processes:
        process.kill()
        if process.stderr and not process.stderr.closed:
            process.communicate()


def shared(spec: RunSpec, **changes: Any) -> RunSpec:
    return options(spec, **{"batch": 4, **changes})


def prune(spec: RunSpec, folder: Path) -> int:
    """Prune by this spec on the command line; the exit code."""
    (folder / "asked.json").write_text(spec.to_json())
    return main(["prune", "--spec", str(folder / "asked.json"), "--runs-dir", str(folder / "runs")])


def the_run(folder: Path) -> Path:
    (run_dir,) = list_runs(folder / "runs")
    return run_dir


def said(run_dir: Path) -> list[str]:
    return [event.data.get("text", "") for event in EventReader(run_dir / "events.jsonl").read()]


def points(run_dir: Path) -> dict[str, dict[float, float]]:
    series = metric_series(EventReader(run_dir / "events.jsonl").read())
    return {name: dict(of_curve) for name, of_curve in series.items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, spec: RunSpec) -> Path:
    """A run of one process that splits its batches as two would."""
    run_dir = started(tmp_path_factory.mktemp("alone"), shared(spec, accumulate=2))
    execute(run_dir)
    return run_dir


def test_one_that_dies_ends_the_run_in_words_and_two_learn_what_one_learns(
    tmp_path: Path, spec: RunSpec, alone: Path, second: Launch, capfd: pytest.CaptureFixture[str]
) -> None:
    second(KILLED)
    assert prune(shared(spec), tmp_path) == 2
    run_dir, word = (
        the_run(tmp_path),
        "Process 2 of 2 is gone without a word: killed, possibly out of memory.",
    )
    assert capfd.readouterr().err.splitlines()[-1] == word
    assert read_status(run_dir).state == "failed" and read_status(run_dir).error["message"] == word  # type: ignore[index]
    assert sorted(curves(run_dir)["train.kl"]) == list(range(1, 8))
    other = second()
    assert main(["runs", "resume", run_dir.name, "--runs-dir", str(run_dir.parent)]) == 0
    assert other.wait(20) == 0 and other.communicate()[1] == b""
    assert "Training goes on after step 6 of 12" in said(run_dir)
    assert "2 processes train together" in said(run_dir)
    assert read_plan(run_dir) == read_plan(alone)
    ours, theirs = curves(run_dir), curves(alone)
    for name in ("kl", "expected", "lambda_1", "ppl_cut"):
        assert ours[f"train.{name}"] == pytest.approx(theirs[f"train.{name}"], rel=1e-3), name
    assert ours["train.teacher"] == theirs["train.teacher"] and max(ours["train.teacher"].values()) > 0
    assert not torch.distributed.is_initialized() and "WORLD_SIZE" not in os.environ


def test_all_skip_a_step_that_is_no_number_for_one_and_stop_together_and_one_goes_on(
    tmp_path: Path, spec: RunSpec, second: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.runs.recorder import Recorder

    original = Recorder.metric

    def metric(recorder: Recorder, name: str, step: float, value: float) -> None:
        original(recorder, name, step, value)
        if name == "train.target" and step == 4:
            (recorder.run_dir / STOP).write_text("")

    monkeypatch.setattr(Recorder, "metric", metric)
    other = second(NO_NUMBER)
    assert prune(shared(spec), tmp_path) == 130 == other.wait(20)
    run_dir = the_run(tmp_path)
    assert read_status(run_dir).state == "stopped"
    ours = curves(run_dir)
    assert sorted(ours["train.kl"]) == [1, 3, 4]
    assert list(ours["train.skipped"].values()) == [0.0, 1.0, 1.0, 1.0]
    monkeypatch.undo()
    company._joined.clear()
    together._met.clear()
    write_status(run_dir, Status(state="queued"))
    execute(run_dir)  # alone, in parts no larger than those of each of two
    assert "Training goes on after step 4 of 12" in said(run_dir)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),  # the control of the other is trained like this one
        {"method": "distill", "targets": "weights", "control": True},
    ],
)
def test_two_recover_what_one_recovers(
    tmp_path: Path, spec: RunSpec, texts: tuple[Path, Path], second: Launch, changes: dict[str, Any]
) -> None:
    recipe = replace(TRAIN, data=str(texts[0]), **changes)
    asked = replace(spec, prune=PruneSpec("l2", 0.3), recover=recipe)
    one = started(tmp_path / "one", asked)
    execute(one)
    other = second()
    assert prune(asked, tmp_path) == 0 == other.wait(20)
    two = the_run(tmp_path)
    ours, theirs = (
        {name: of for name, of in points(run_dir).items() if name.startswith(("recover.", "control."))}
        for run_dir in (two, one)
    )
    assert ours.keys() == theirs.keys() and len(ours["recover.loss"]) == 6
    assert any(name.startswith("control.") for name in ours) == recipe.control
    for name in ours:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name
    a, b = (from_pretrained(run_dir / MODEL).state_dict() for run_dir in (two, one))
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-3, atol=1e-4)
    assert said(two).count("2 processes train together") == 1 + recipe.control


def test_one_that_cannot_load_says_why(
    tmp_path: Path, spec: RunSpec, second: Launch, capfd: pytest.CaptureFixture[str]
) -> None:
    other = second(
        "import sys\nfrom core.models import load\nfrom core.errors import ModelError\n"
        "def load_(**given): raise ModelError('The disk is not there.')\n"
        "load.load = load_\n" + PLAIN
    )
    assert prune(shared(spec), tmp_path) == 2 == other.wait(20)
    assert capfd.readouterr().err.splitlines()[-1] == "Process 2 of 2 failed: The disk is not there."


def test_what_does_not_train_is_done_once_and_a_mistake_is_said_once(
    tmp_path: Path, spec: RunSpec, second: Launch, capfd: pytest.CaptureFixture[str]
) -> None:
    other = second()
    assert prune(shared(spec, batch=3), tmp_path) == 2 == other.wait(20)
    assert "2 processes train together, and cannot share a batch of 3" in capfd.readouterr().err
    assert other.communicate()[1] == b"" and not (tmp_path / "runs").exists()


def test_an_option_starts_the_others_and_all_end_with_the_one_that_waits(
    tmp_path: Path, spec: RunSpec, alone: Path
) -> None:
    run_dir = started(tmp_path, shared(spec, processes=2, steps=1000))
    write_status(run_dir, Status(state="queued"))
    code = "import sys, pathlib, core.stages.worker as w; w.execute(pathlib.Path(sys.argv[1]))"
    waits = subprocess.Popen([sys.executable, "-c", code, str(run_dir)], cwd=launch.ROOT)
    until(lambda: len(curves(run_dir).get("train.kl", {})) > 2, seconds=120)
    family = [(one.pid, one.create_time()) for one in psutil.Process(waits.pid).children(recursive=True)]
    assert len(family) == 3 and read_status(run_dir).pid == waits.pid  # the launcher, and the two
    sockets = [socket for pid, _ in family for socket in psutil.Process(pid).net_connections()]
    assert {socket.laddr.ip for socket in sockets if socket.status == "LISTEN"} == {"127.0.0.1"}
    waits.kill()
    until(lambda: not any(alive(*one) for one in family), seconds=20)
    waits.wait()
    run_dir = started(tmp_path / "again", shared(spec, processes=2))
    events: list[Event] = []
    execute(run_dir, events.append)
    assert read_status(run_dir).state == "finished" and read_plan(run_dir) == read_plan(alone)
    assert [event.data for event in events if event.type == "done"] == [{"state": "finished"}]
    assert "2 processes train together" in (run_dir / LOG).read_text()


def test_a_launcher_that_is_interrupted_stops_the_run(tmp_path: Path, spec: RunSpec) -> None:
    (tmp_path / "asked.json").write_text(shared(spec, steps=1000).to_json())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = f"-m core prune --spec {tmp_path}/asked.json --runs-dir {tmp_path}/runs".split()
    launcher = subprocess.Popen([*torchrun, *command], cwd=launch.ROOT, stderr=subprocess.PIPE)

    def trains() -> bool:
        return any(len(curves(run_dir).get("train.kl", {})) > 2 for run_dir in list_runs(tmp_path / "runs"))

    until(trains, seconds=120)
    launcher.send_signal(signal.SIGINT)
    error = launcher.communicate(timeout=60)[1].decode()
    run_dir = the_run(tmp_path)
    assert f"Stopped. Go on with: python -m core runs resume {run_dir.name}" in error
    assert read_status(run_dir).state == "stopped" and (run_dir / "checkpoint").is_dir()


def test_more_processes_than_devices_are_refused_before_anything_starts(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [str(one) for one in devices(torch.device("cuda:1"), 3)] == ["cuda:1", "cuda:2", "cuda:3"]
    assert [str(one) for one in devices(torch.device("cuda"), 2)] == ["cuda:0", "cuda:1"]
    with pytest.raises(SpecError, match="at most 4 here, the number of cuda devices, got 5"):
        devices(torch.device("cuda"), 5)
    monkeypatch.setattr(check, "pick_device", lambda name: torch.device("cuda:3"))
    says = "at most 1 here, the number of cuda devices from number 3 on, got 2"
    with pytest.raises(SpecError, match=says):
        check.check(shared(spec, processes=2))


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    asked = PruneSpec("nuteprune", options={"processes": 2, "batch": 4})
    spec = RunSpec(prune=asked, recover=RecoverSpec("lora", batch=3, micro_batch=3))
    with pytest.raises(SpecError, match=r"2 processes .* batch of 3 evenly; write batch=4"):
        check.check_device(spec)
