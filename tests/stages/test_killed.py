"""`kill -9` at twenty random moments of a run: resumed, each gives the same plan and the same bytes.

Its processes come of one that has read all libraries, so that a moment is one of the run, not of imports.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from core.runs import launch, watch
from core.runs.artifacts import MODEL, PLAN
from core.runs.status import Status, write_status
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec

MOMENTS = 20
ROOT = Path(__file__).resolve().parents[2]
#: Forks, for every folder it is given, a process that does the run in it; says its number and exit code.
NURSERY = """
import os, sys
from pathlib import Path
import peft, core.stages.pipeline, core.stages.teacher, core.recover.train
from core.stages.worker import execute
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        try:
            execute(Path(line.strip()))
            os._exit(0)
        except BaseException:
            os._exit(1)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Nursery:
    """Where the processes come from."""

    def __init__(self) -> None:
        asked = [sys.executable, "-W", "ignore", "-c", NURSERY]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            asked, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def run(self, run_dir: Path, stage: str = "", later: float = 0.0) -> int:
        """Do a run from where it is, or kill whoever does, so many seconds into a stage; the exit code."""
        assert self.process.stdin and self.process.stdout
        write_status(run_dir, Status(created=1.0))
        print(run_dir, file=self.process.stdin, flush=True)
        pid = int(self.process.stdout.readline())
        if stage:
            while watch.read(run_dir).stage != stage and watch.read(run_dir).state != "finished":
                time.sleep(0.001)
            time.sleep(later)
            with suppress(ProcessLookupError):  # it was done already
                os.kill(pid, signal.SIGKILL)
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.process.kill()
    made.process.communicate()  # which closes its ends, too


def result(run_dir: Path) -> tuple[bytes, dict[str, bytes]]:
    """The plan and the weights, byte by byte."""
    weights = sorted((run_dir / MODEL).glob("*.safetensors"))
    return (run_dir / PLAN).read_bytes(), {path.name: path.read_bytes() for path in weights}


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_it_is_as_if_never_killed(
    nursery: Nursery,
    spec: RunSpec,
    texts: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recover = RecoverSpec(
        "lora", learning_rate=5e-2, warmup=1, steps=8, batch=4, micro_batch=4, length=16, eval_every=2,
        held=4, precision="no", data=str(texts[0]),
    )  # fmt: skip
    asked = replace(spec, recover=recover, prune=replace(spec.prune, reconstruct="bias"))
    whole = launch.create(tmp_path / "whole", asked, mine=True)
    assert nursery.run(whole) == 0
    wanted, among = result(whole), watch.read(whole).stages
    same, stages, draw = 0, list[str](), random.Random(20)
    for number in range(MOMENTS):
        run_dir = launch.create(tmp_path / str(number), asked, mine=True)
        for _ in range(1 + number % 2):  # every other one is killed again on its way back
            if nursery.run(run_dir, draw.choice(among), draw.uniform(0, 0.3)) == -signal.SIGKILL:
                stages.append(watch.read(run_dir).stage)
        if watch.read(run_dir).state != "finished":
            assert nursery.run(run_dir) == 0, watch.read(run_dir)
        same += result(run_dir) == wanted
        with capsys.disabled():
            print(f"{same} of {number + 1} the same; killed in {', '.join(stages)}", flush=True)
    assert same == MOMENTS and len(set(stages)) > 4
