"""A budget dragged over the curves of a scan: the browser spreads it as the engine does, and launches it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from core.plan.allocation import allocate
from core.results.curves import curves_of_scan
from core.results.scores import write_scores
from core.results.sensitivity import Sensitivity, write_sensitivity
from core.runs import launch
from core.runs.artifacts import read_spec
from core.runs.watch import list_runs
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from tests.browser.driver import Dashboard
from tests.pruneviz.samples import graph, make_run

pytestmark = pytest.mark.browser
POINTS = [
    {"layer": layer, "kind": kind, "ratio": ratio, "ppl": 20 * np.exp(ratio**2 * weight * (1 + layer))}
    for layer in (0, 1)
    for kind, weight in (("attention", 1.0), ("ffn", 0.3))
    for ratio in (0.25, 0.5, 0.75)
]
SCAN = Sensitivity(20.0, "a text", 8, 64, "l2", POINTS)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Iterator[Dashboard]:
    """A dashboard of its own, with a scan at three shares and scores."""
    app = Dashboard(tmp_path_factory.mktemp("board") / "runs", model=str(tiny_llama_folder))
    spec = RunSpec(goal="explore", model=ModelSpec(app.model))
    run = make_run(app.runs_dir, "explored", spec, with_graph=True)
    rng = np.random.default_rng(0)
    write_scores(run, {"l2": {g.id: rng.random(g.units, np.float32) for g in graph().groups}})
    write_sensitivity(run, SCAN)
    app.start()
    yield app
    app.stop()


def test_widths_follow_the_budget_without_a_request_and_are_launched(page: Any, board: Dashboard) -> None:
    page.goto(board.url + "?tab=sensitivity")
    slider, planner = page.locator("#budget-slider"), page.locator("#sensitivity-budget")
    expect(planner.locator(".pv-width")).to_have_count(4)
    page.wait_for_timeout(500)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for value in (100, 500, 300):
        slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", value)
    expect(planner).to_contain_text("block parameters go")
    took = planner.evaluate("(e) => [e, ...e.querySelectorAll('*')].map((x) => x.dataset.took).find(Boolean)")
    assert asked == [] and float(took) < 100
    page.locator("#budget-launch").click()
    expect(page.locator("#new-preview")).to_contain_text("Exact: the units are known.")
    expect(page.locator("#new-command textarea")).to_have_value(re.compile("--units .*--reconstruct bias"))
    assert len(list_runs(board.runs_dir)) == 1, "nothing is started before somebody has seen it"
    page.locator("#new-name input, #new-name textarea").first.fill("by the slider")
    page.locator("#new-launch").click()
    expect(page.locator("#run-detail")).to_contain_text("by the slider")
    run = next(run for run in list_runs(board.runs_dir) if run.name != "explored")
    launch.stop(run)
    spec, curves = read_spec(run), curves_of_scan(SCAN, graph())
    scores = {g.id: np.random.default_rng(0).random(g.units, np.float32) for g in graph().groups}
    like = allocate(graph(), scores, sparsity=0.3, scope="searched", curves=curves)
    assert spec.prune.method == "manual" and spec.name == "by the slider"
    for group in graph().of_kind("query_head", "ffn_channel"):
        here, there = (len(each.get(group.id, ())) for each in (spec.prune.units, like.removed))
        assert abs(here - there) <= 1, (group.id, spec.prune.units, like.removed)


def test_a_typed_budget_out_of_reach_is_said_and_an_emptied_one_comes_back(
    page: Any, board: Dashboard
) -> None:
    page.goto(board.url + "?tab=sensitivity")
    number, said = page.locator("#budget-percent"), page.locator("#budget-bounds")
    expect(page.locator("#sensitivity-budget .pv-width")).to_have_count(4)

    def typed(text: str) -> None:
        number.fill(text)
        number.press("Enter")
        number.blur()

    typed("30")
    expect(said).to_be_hidden()
    typed("")
    expect(number).to_have_value("30.0")
    typed("99.9")
    expect(said).to_have_text(re.compile(r"^The most is \d+\.\d %: one unit of every group must stay\.$"))
    most = float(number.input_value())
    assert 30 < most < 99.9 and f"The most is {most:.1f} %" in said.inner_text()
    typed(str(most - 1))
    expect(said).to_be_hidden()
    page.locator("#budget-of").select_option("params")
    typed("99.9")
    expect(said).to_contain_text("and the rest is not in these groups")
    typed("-5")
    expect(said).to_contain_text("The least is 0 %")
    expect(number).to_have_value("0.0")


def test_on_a_phone_the_form_opens_though_its_tab_is_in_a_menu(page: Any, board: Dashboard) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(board.url + "?tab=sensitivity")
    expect(page.locator("#sensitivity-budget .pv-width")).to_have_count(4)
    assert page.locator("#tab-runs-button").count() == 0
    page.locator("#budget-launch").click()
    expect(page.locator("#new-command textarea")).to_have_value(re.compile("--units"))
    expect(page.locator("#new-launch")).to_be_visible()
