"""A budget dragged over the curves of a scan: the browser spreads it as the engine does, and launches it."""

from __future__ import annotations

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
    expect(page.locator("#sensitivity-budget-state")).to_contain_text("Started")
    run = next(run for run in list_runs(board.runs_dir) if run.name != "explored")
    launch.stop(run)
    spec, curves = read_spec(run), curves_of_scan(SCAN, graph())
    scores = {g.id: np.random.default_rng(0).random(g.units, np.float32) for g in graph().groups}
    like = allocate(graph(), scores, sparsity=0.3, scope="searched", curves=curves)
    assert spec.prune.method == "manual"
    for group in graph().of_kind("query_head", "ffn_channel"):
        here, there = (len(each.get(group.id, ())) for each in (spec.prune.units, like.removed))
        assert abs(here - there) <= 1, (group.id, spec.prune.units, like.removed)
