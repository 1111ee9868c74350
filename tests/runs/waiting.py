"""Runs whose workers do small work, what is asked of them, and waiting until something holds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from core.runs import launch, watch
from core.spec.run import RunSpec

FAKE = Path(__file__).with_name("fake_worker.py")


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something holds; fail if it never does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def named(name: str) -> RunSpec:
    return RunSpec(goal="evaluate", name=name)


def state(run_dir: Path) -> str:
    return watch.refresh(run_dir).state


def executed(run_dir: Path) -> int:
    path = run_dir / "executed"
    return len(path.read_text().splitlines()) if path.exists() else 0


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(launch.ROOT)}
