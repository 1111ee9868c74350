"""What a node looks at before it works, and clusters that cannot be reached: each in one line."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.cluster import keeper, node, on_ray
from core.cluster.placed import ROOT
from core.errors import LaunchError, SpecError
from core.runs import launch
from core.runs.command_line import command_line
from core.runs.status import read_status
from core.spec.cluster import ClusterSpec
from core.spec.run import RunSpec
from core.stages import worker


def refused(run_dir: Path, versions: dict[str, str]) -> str:
    return node.work(str(ROOT), str(run_dir), "nothing", ["", 1, 0.0], versions)["refused"]


def test_a_node_without_the_shared_folder_says_which(tmp_path: Path) -> None:
    text = refused(tmp_path / "runs", {})
    assert text.startswith(
        f"Node {socket.gethostname()} has no folder {tmp_path / 'runs'}: the runs folder must"
    )
    assert "has no folder /nowhere: the workbench's" in node.work("/nowhere", "", "", [], {})["refused"]


def test_a_node_with_other_versions_names_them(tmp_path: Path) -> None:
    own = node.versions_in(str(ROOT))
    text = refused(tmp_path, {**own, "torch": "2.9.1", "workbench": "0123"})
    assert f"torch {own['torch']} there, 2.9.1 here; workbench {own['workbench']} there, 0123 here" in text
    assert "transformers" not in text and "+" not in own["torch"]


def test_a_node_imports_nothing_of_ours_before_it_has_looked() -> None:
    source = Path(node.__file__).read_text()
    assert "import core" not in source and "from core" not in source


def test_the_workers_code_is_part_of_the_versions(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "a.py").write_text("one")
    before = node.versions_in(str(tmp_path))["workbench"]
    (tmp_path / "core" / "a.py").write_text("two")
    assert node.versions_in(str(tmp_path))["workbench"] != before


@pytest.mark.parametrize(("executor", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_named_with_what_brings_it(
    executor: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(LaunchError, match=f"needs {package}, .*pip install -r requirements-cluster.txt"):
        keeper.reach(ClusterSpec(executor), "auto", tmp_path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_address_that_nobody_answers_fails_the_run_at_once(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    address, began = f"127.0.0.1:{free_port()}", time.monotonic()
    spec = RunSpec(goal="evaluate", cluster=ClusterSpec("ray", address))
    run_dir = launch.create(tmp_path, spec, mine=True)
    with pytest.raises(LaunchError, match=f"Nobody answers at the Ray address {address}: .*ray status"):
        worker.execute(run_dir)
    status = read_status(run_dir)
    assert status.state == "failed" and status.error and address in status.error["message"]
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_an_address_where_something_else_listens_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(on_ray, "JOIN_S", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(LaunchError, match=f"Ray at {address} cannot be used from here: "):
            on_ray.RayCluster(address, 1, 0)


def test_no_address_at_all_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(LaunchError, match=r"must be HOST:PORT .*got none, and RAY_ADDRESS is not set"):
        keeper.reach(ClusterSpec("ray"), "auto", tmp_path)


def test_slurm_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=r"SLURM is not there: .*start this on a login node"):
        keeper.reach(ClusterSpec("slurm"), "auto", tmp_path)


def test_options_that_belong_to_another_executor_are_refused() -> None:
    with pytest.raises(SpecError, match="--ray-address belongs to --executor ray, got it with local"):
        ClusterSpec(address="a:1")
    with pytest.raises(SpecError, match="--time belongs to --executor slurm"):
        ClusterSpec("ray", minutes=5)
    with pytest.raises(SpecError, match=r"must be HOST:PORT .*got 'nonsense'"):
        ClusterSpec("ray", "nonsense")
    with pytest.raises(SpecError, match=r"Unknown executor 'rai'. Did you mean 'ray'"):
        ClusterSpec("rai")


def test_the_command_line_says_where() -> None:
    spec = RunSpec(cluster=ClusterSpec("slurm", partition="gpu", gpus=2, minutes=90))
    assert "--executor slurm --gpus 2 --partition gpu --time 90" in command_line(spec)
    assert "--executor" not in command_line(RunSpec())


def test_neither_ray_nor_submitit_is_loaded_where_nobody_asks() -> None:
    loaded = "import sys, core.stages.worker; print('ray' in sys.modules, 'submitit' in sys.modules)"
    assert (
        subprocess.check_output([sys.executable, "-c", loaded], cwd=ROOT, text=True).split() == ["False"] * 2
    )
