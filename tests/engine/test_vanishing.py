"""The process of an engine: what it needs, its death, and its end, which nothing here comes after."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from core.engine.client import Engine
from core.errors import LaunchError
from tests.engine.asking import PROMPT, child
from tests.runs.waiting import environment, until


def test_asking_needs_no_torch() -> None:
    code = (
        "import sys, core.engine.client as c; c.Engine(); print({'torch', 'transformers'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_a_death_is_told_and_the_next_call_works(engine: Engine, endless: str) -> None:
    events = engine.generate(endless, PROMPT, max_new_tokens=1_000_000)
    next(events)
    first = child()
    first.send_signal(signal.SIGKILL)
    with pytest.raises(LaunchError, match="The engine has ended in the middle of this"):
        list(events)
    assert engine.state()["models"] == {}
    assert engine.load(endless)["name"] == "endless"
    idle = child()
    assert idle.pid != first.pid
    idle.send_signal(signal.SIGKILL)
    idle.wait(30)
    time.sleep(0.2)
    assert engine.load(endless)["name"] == "endless", "a death while idle costs nobody anything"


def test_closing_ends_the_process_in_the_middle(engine: Engine, endless: str) -> None:
    events = engine.generate(endless, PROMPT, max_new_tokens=1_000_000)
    next(events)
    process = child()
    engine.close()
    with pytest.raises(LaunchError):
        list(events)
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    assert engine.state() == {"started": False, "busy": False, "models": {}}


PARENT = """
import sys, time, psutil
from core.engine.client import Engine

if __name__ == "__main__":
    engine = Engine("cpu")
    events = engine.generate(sys.argv[1], "the of", max_new_tokens=1_000_000)
    next(events)
    print(*[child.pid for child in psutil.Process().children()], flush=True)
    time.sleep(600)
"""


def test_it_ends_when_its_parent_is_killed(tmp_path: Path, endless: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(script), endless],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert children
    parent.kill()
    parent.communicate()
    until(
        lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    )
