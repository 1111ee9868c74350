"""The cards of this machine on the Runs tab; nothing is shown without one. Node and card of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core.runs.gpus import Gpu, Holder
from core.runs.status import Status
from core.spec.run import RunSpec
from pruneviz.data.runs import RunRecord
from pruneviz.figures.run_detail import run_facts
from pruneviz.figures.runs_table import gpus_html, gpus_info, of_this_machine, row_info, table_html

CARD = Gpu(0, "NVIDIA <H200>", 30.0, 120.0, 0.7, (Holder(7, "python", 20.0), Holder(8, "other", None)))
AT_WORK = Status(state="running", pid=7, executor="ray", node="n2", gpu="NVIDIA H200, number 3")
RECORD = RunRecord("r1", Path("runs/r1"), RunSpec(), AT_WORK, {})


def test_a_card_says_who_holds_it() -> None:
    (row,) = gpus_info([CARD], [RECORD])
    assert (row.device, row.memory, row.share, row.busy) == ("cuda:0", "30.0 of 120.0 GiB", 0.25, "70 % busy")
    assert row.holders == ("r1: 20.0 GiB", "other, process 8")
    html = gpus_html([row])
    assert "NVIDIA &lt;H200&gt;" in html and 'value="0.25"' in html


def test_nothing_is_shown_without_a_card() -> None:
    assert of_this_machine([RECORD]) == "" == gpus_html([])


def test_node_and_card_stand_in_the_list_and_on_the_run() -> None:
    assert row_info(RECORD, 0.0).place == "n2 · NVIDIA H200, number 3"
    assert "n2 · NVIDIA H200, number 3" in table_html([row_info(RECORD, 0.0)])
    assert ("Works on", "n2 · NVIDIA H200, number 3") in run_facts(RECORD, 0.0)
    ended = replace(RECORD, status=replace(AT_WORK, state="finished"))
    assert ("Worked on", "n2 · NVIDIA H200, number 3") in run_facts(ended, 0.0)
    assert row_info(replace(RECORD, status=Status()), 0.0).place == ""
