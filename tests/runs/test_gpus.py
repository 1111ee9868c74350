"""What nvidia-smi tells of cards and of who holds their memory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from core.runs import gpus as module
from core.runs.gpus import Gpu, Holder, gpus, read_gpus

CARDS = "1, GPU-b, NVIDIA H200, 2048, 143771, [N/A]\n0, GPU-a, NVIDIA A100, 40960, 81920, 37\n"
HOLDERS = "GPU-a, 4711, /usr/bin/python, 39936\nGPU-x, 1, gone, 5\nGPU-b, 8, python, [N/A]\n"


def test_cards_and_their_holders_are_read() -> None:
    first, second = read_gpus(lambda what: CARDS if "query-gpu" in what else HOLDERS)
    assert first == Gpu(0, "NVIDIA A100", 40.0, 80.0, 0.37, (Holder(4711, "/usr/bin/python", 39.0),))
    assert (second.device, second.busy, second.holders) == ("cuda:1", None, (Holder(8, "python", None),))


def test_a_driver_that_does_not_answer_has_no_cards() -> None:
    assert read_gpus(lambda what: "") == ()
    assert read_gpus(lambda what: "No devices were found") == ()


def test_the_program_is_asked_and_its_answer_kept_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f"#!/bin/sh\necho x >> {tmp_path}/asked\ncase $1 in *query-gpu*) cat <<E\n{CARDS}E\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    module._told.cache_clear()
    assert [card.device for card in gpus()] == ["cuda:0", "cuda:1"]
    assert len(gpus()) == 2 and (tmp_path / "asked").read_text().count("x") == 2
    module._told.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    assert gpus() == ()
    module._told.cache_clear()
