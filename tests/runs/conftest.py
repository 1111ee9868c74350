"""A runs folder whose workers do small work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.runs import launch, watch
from tests.runs.waiting import FAKE, until


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runs folder whose workers do small work; those still there at the end are ended."""
    monkeypatch.setattr(launch, "WORKER", (sys.executable, str(FAKE)))
    monkeypatch.setattr("core.runs.launch._children", [])
    folder = tmp_path / "runs"
    yield folder
    for path in watch.list_runs(folder):
        (path / "go").touch()
    for path in watch.list_runs(folder):
        launch.stop(path)
    until(lambda: not any(child.poll() is None for child in launch._children))
