from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import InputError, LaunchError, StorageError
from core.spec.cluster import ClusterSpec
from pruneviz import arguments
from tests.browser.driver import free_port

ROOT = Path(__file__).resolve().parents[2]


def test_a_port_in_use_is_said_with_the_next_one():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LaunchError, match=f"Port {port} .* --port {port + 1}"):
            arguments.free_port("127.0.0.1", port)


@pytest.mark.parametrize("port", [0, 70_000])
def test_no_such_port(port):
    with pytest.raises(InputError, match="between 1 and 65535"):
        arguments.free_port("127.0.0.1", port)


def test_a_runs_folder_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="--runs-dir"):
        arguments.writable(tmp_path / "file" / "runs")


def test_a_runs_folder_is_made_and_left_empty(tmp_path):
    assert list(arguments.writable(tmp_path / "new").iterdir()) == []


def test_other_machines_need_a_login_or_a_word():
    assert arguments.reachable("127.0.0.1", None, insecure=False) is None
    assert arguments.reachable("0.0.0.0", None, insecure=True) is None
    assert arguments.reachable("0.0.0.0", ("ada", "x"), insecure=False) == ("ada", "x")
    for host in ("0.0.0.0", "::"):
        with pytest.raises(InputError, match=r"--auth USER .* --insecure"):
            arguments.reachable(host, None, insecure=False)


@pytest.mark.parametrize("given", [[], ["--allow-remote-code"]])
def test_code_of_models_is_allowed_by_a_word_alone(tmp_path, given):
    where = ["--runs-dir", str(tmp_path), "--port", str(free_port())]
    assert arguments.parse([*where, *given]).allow_remote_code == bool(given)
    with pytest.raises(InputError, match="ignored explicit argument 'no'"):
        arguments.parse([*where, "--allow-remote-code=no"])


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e9, float("nan"), float("inf")])
def test_no_such_limit(seconds):
    with pytest.raises(InputError, match="--load-limit must be more than 0 and at most 1,000,000 seconds"):
        arguments.positive(seconds)


def test_the_program_answers_a_wrong_option_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    command = [sys.executable, "app.py", "--runs-dir", str(tmp_path / "file" / "runs")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "--runs-dir" in done.stderr


def test_where_runs_work_is_said_once_for_the_page(tmp_path):
    given = arguments.parse(
        [
            "--port",
            str(free_port()),
            "--runs-dir",
            str(tmp_path),
            "--executor",
            "slurm",
            "--gpus",
            "2",
            "--partition",
            "gpu",
        ]
    )
    assert given.cluster == ClusterSpec("slurm", gpus=2, partition="gpu")
    with pytest.raises(InputError, match=r"--gpus must be a whole number from 0 up, got 'two'"):
        arguments.parse(
            ["--port", str(free_port()), "--runs-dir", str(tmp_path), "--executor", "ray", "--gpus", "two"]
        )
    with pytest.raises(InputError, match=r"Unknown executor 'rey'\. Did you mean 'ray'"):
        arguments.parse(["--port", str(free_port()), "--runs-dir", str(tmp_path), "--executor", "rey"])


def test_where_weights_rest_is_said_once_for_the_page(tmp_path):
    given = ["--port", str(free_port()), "--runs-dir", str(tmp_path), "--max-memory", "cpu=2GiB"]
    read = arguments.parse([*given, "--device-map", "auto"])
    assert (read.device_map, read.max_memory) == ("auto", "cpu=2GiB")
    with pytest.raises(InputError, match="counts for nothing without --device-map auto"):
        arguments.parse(given)
