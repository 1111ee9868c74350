"""A script of one's own that a launcher starts several times: `core.run` is one run of all of them."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed as dist

import core
from core.errors import LaunchError, SpecError
from core.runs import company
from core.runs.artifacts import read_plan
from core.runs.status import read_status
from core.spec.run import RunSpec
from core.stages import together
from tests.browser.driver import free_port
from tests.stages.test_nuteprune import spec as spec
from tests.stages.test_together import Launch, said, shared, the_run
from tests.stages.test_together import alone as alone
from tests.stages.test_together import second as second

#: Asks for a run that cannot be, then for one that can.
SCRIPT = """
import sys, core
from core.errors import LaunchError
wrong, right = (core.RunSpec.from_json(open(f"{folder}/" + name).read()) for name in ("wrong", "right"))
try:
    core.run(wrong, "{folder}/runs")
except LaunchError as error:
    print(error, file=sys.stderr)
print(core.run(right, "{folder}/runs"), file=sys.stderr)
"""


def test_a_script_makes_one_run_after_the_other_with_all_that_were_started(
    tmp_path: Path, spec: RunSpec, alone: Path, second: Launch
) -> None:
    wrong, right = shared(spec, batch=3), shared(spec)
    for name, asked in {"wrong": wrong, "right": right}.items():
        (tmp_path / name).write_text(asked.to_json())
    other = second(SCRIPT.replace("{folder}", str(tmp_path)))
    before, said_before = signal.getsignal(signal.SIGTERM), os.environ["MASTER_PORT"]
    with pytest.raises(SpecError, match="2 processes train together, and cannot share a batch of 3"):
        core.run(wrong, tmp_path / "runs")
    run_dir = core.run(right, tmp_path / "runs")
    assert other.wait(20) == 0
    refused, path = other.communicate()[1].decode().splitlines()
    assert refused.startswith("The first process of this launch did not finish its run: 2 processes train")
    assert path == str(run_dir) and run_dir == the_run(tmp_path)
    assert read_status(run_dir).state == "finished" and "2 processes train together" in said(run_dir)
    assert read_plan(run_dir) == read_plan(alone)
    # What the launcher said is there for the rest of the script, and its signals do what they did.
    assert (os.environ["MASTER_PORT"], os.environ["RANK"]) == (said_before, "0")
    assert signal.getsignal(signal.SIGTERM) == before
    assert company.company() is None and not together._met


def test_a_group_that_the_script_made_is_refused(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    with pytest.raises(LaunchError, match=r"torch\.distributed is initialised .* call core\.run before"):
        core.run(replace(spec, name="grouped"), tmp_path)
    assert os.environ["WORLD_SIZE"] == "2" and not list(tmp_path.iterdir())
