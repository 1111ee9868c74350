"""A real Ray cluster of two nodes on this machine, and workers that give their runs to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.runs import launch, watch
from tests.cluster import waiting_worker
from tests.runs.waiting import until


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runs folder; what is at work in it at the end is ended."""
    monkeypatch.setattr("core.runs.launch._children", [])
    folder = tmp_path / "runs"
    yield folder
    for path in watch.list_runs(folder):
        launch.kill(path)
    until(lambda: not any(child.poll() is None for child in launch._children))


@pytest.fixture
def small_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers whose nodes do small work."""
    monkeypatch.setattr(launch, "WORKER", (sys.executable, str(waiting_worker.__file__)))


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Any]:
    """Two nodes with a CPU each; tests that end one add another."""
    utils = pytest.importorskip("ray.cluster_utils", reason="pip install -r requirements-cluster.txt")
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = utils.Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.second = cluster.add_node(**node)
    cluster.another = lambda: cluster.add_node(**node)
    yield cluster
    cluster.shutdown()
