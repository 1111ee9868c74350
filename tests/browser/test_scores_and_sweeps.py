"""Scores, heads, sensitivity and sweeps in a real browser, on a tiny model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from core.results.activations import PLACES, Activation, Activations, write_activations
from core.results.scores import read_scores, write_scores
from core.results.similarity import Similarity, write_similarity
from core.results.sweep import Point, Sweep, write_sweep
from core.runs import launch
from core.runs.artifacts import read_spec
from core.runs.watch import list_runs
from core.spec.explore import ExploreSpec
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from pruneviz.data.selection import units_of
from tests.browser.driver import Dashboard
from tests.pruneviz.samples import graph, make_run

pytestmark = pytest.mark.browser
LONG = 120_000


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Iterator[Dashboard]:
    """A dashboard of its own, with one exploring run as a worker leaves it."""
    app = Dashboard(tmp_path_factory.mktemp("board") / "runs", model=str(tiny_llama_folder))
    spec = RunSpec(goal="explore", model=ModelSpec(app.model), explore=ExploreSpec(criteria=("l2", "l1")))
    run = make_run(app.runs_dir, "explored", spec, with_graph=True)
    rng = np.random.default_rng(0)
    write_scores(
        run,
        {name: {g.id: rng.random(g.units, np.float32) for g in graph().groups} for name in ("l2", "l1")},
    )
    points = [Activation(layer, place, 0.1 + layer, 0.2, 3.0) for layer in (0, 1) for place in PLACES]
    write_activations(run, Activations(tuple(points), 64, "a text"))
    near = np.full((2, 4, 4), 0.5, np.float32)
    near[:, [0, 1], [1, 0]] = 0.1
    near[:, range(4), range(4)] = 0.0
    write_similarity(run, Similarity(near, [0, 1], 100, "bundled"))
    sweep = make_run(app.runs_dir, "swept", RunSpec(goal="sweep", model=ModelSpec(app.model)))
    points = [
        Point(
            "l2", target, "local", "none", 0, 16, target, target, round(1e6 * (1 - target)), 9, ppl,
            ppl_stderr=2.0, change_stderr=0.25,
        )
        for target, ppl in ((0.1, 30.0), (0.4, 90.0))
    ]  # fmt: skip
    found = Sweep(20.0, 1_000_000, 10, "bundled", 256, 4096, "bundled", 2, tuple(points), ppl_stderr=1.0)
    write_sweep(sweep, found)
    app.start()
    yield app
    app.stop()


def test_a_criterion_is_explained_and_drawn(page: Any, board: Dashboard) -> None:
    page.goto(board.url + "?tab=scores&criterion=l1&kind=query_head")
    expect(page.locator("#scores-heat .main-svg").first).to_be_visible()
    expect(page.locator("#scores-agreement .main-svg").first).to_be_visible()
    expect(page.locator("#scores-about")).to_contain_text("sum |w|", timeout=LONG)


def test_sizes_of_features_are_drawn_below(page: Any, board: Dashboard) -> None:
    page.goto(board.url + "?tab=scores")
    expect(page.locator("#scores-activations .main-svg").first).to_be_visible()
    expect(page.locator("#scores-activations .scatterlayer .trace")).to_have_count(4)
    expect(page.locator("#scores-activations-about")).to_contain_text("64 tokens of “a text”")
    expect(page.locator("#scores-activations-beside")).to_be_hidden()


def test_the_button_asks_for_the_chosen_criteria(page: Any, board: Dashboard) -> None:
    page.goto(board.url + "?tab=scores")
    expect(page.locator("#scores-heat .main-svg").first).to_be_visible()
    page.locator("#scores-criteria input").press("Backspace")  # takes the last one away
    page.locator("#scores-samples input").fill("3")
    page.locator("#scores-launch").click()
    expect(page.locator("#scores-launch")).to_be_hidden()
    run = next(run for run in list_runs(board.runs_dir) if run.name not in ("explored", "swept"))
    asked = read_spec(run)
    assert asked.explore.criteria == ExploreSpec().criteria[:-1]
    assert asked.explore.analyses == ("groups", "scores") and asked.calibration.samples == 3
    launch.stop(run)


def test_a_choice_goes_to_the_address(page: Any, board: Dashboard) -> None:
    page.goto(board.url + "?tab=scores")
    page.locator("#scores-units").get_by_text("Query heads").click()
    expect(page).to_have_url(re.compile("kind=query_head"))


def test_units_chosen_in_the_scatter_become_a_plan(page: Any, board: Dashboard) -> None:
    page.goto(board.url + "?tab=scores&criterion=l2&versus=l1&kind=ffn_channel&layer=1")
    expect(page.locator("#scores-chosen")).to_have_text("Nothing chosen yet.")
    page.locator("#scores-share").fill("25")
    page.locator("#scores-lowest").click()
    expect(page.locator("#scores-chosen")).to_have_text("3 channels in 1 layer, 96 parameters")
    page.locator("#scores-take").click()
    scores = read_scores(board.runs_dir / "explored")["l2"]["L01.ffn_channel"]
    lowest = sorted(scores.argsort(kind="stable")[:3].tolist())
    expect(page.locator("#new-units textarea")).to_be_visible()
    text = page.locator("#new-units textarea").input_value()
    assert units_of(text) == {"L01.ffn_channel": tuple(lowest)}


def test_a_box_chooses_what_lies_in_it(page: Any, board: Dashboard) -> None:
    page.goto(board.url + "?tab=scores&criterion=l2&versus=l1&kind=ffn_channel&layer=0")
    canvas = page.locator("#scores-scatter canvas")
    expect(canvas).to_be_visible()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 63, box["y"] + 11)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 14, box["y"] + box["height"] - 46, steps=4)
    page.mouse.up()
    expect(page.locator("#scores-chosen")).to_contain_text("12 channels in 1 layer")
    page.locator("#scores-clear").click()
    expect(page.locator("#scores-chosen")).to_have_text("Nothing chosen yet.")


def test_heads_below_tau_are_taken_into_a_plan(page: Any, board: Dashboard) -> None:
    page.goto(board.url + "?tab=heads&tau=0.2&layer=1")
    expect(page.locator("#heads-pair")).to_contain_text("Heads 0 and 1: divergence 0.10000")
    page.locator("#heads-take").click()
    expect(page.locator("#new-units textarea")).to_have_value("L01.query_head=0")
    page.goto(board.url + "?tab=heads&tau=0.2&layer=1")
    page.locator("#heads-take-all").click()
    expect(page.locator("#new-units textarea")).to_have_value("L00.query_head=0 L01.query_head=0")


def test_attention_of_the_pinned_heads_is_drawn(page: Any, board: Dashboard) -> None:
    page.goto(board.url + "?tab=heads&tau=0.2&layer=1")
    page.locator("#heads-text textarea").fill("the a of <b>")
    page.locator("#heads-attend").click()
    expect(page.locator("#heads-attention canvas")).to_have_count(2, timeout=LONG)
    expect(page.locator("#heads-attention figcaption").last).to_have_text("Layer 1, head 1")
    page.locator("#heads-attention canvas").first.hover(position={"x": 87, "y": 87})
    expect(page.locator("#heads-attention-cell")).to_contain_text("“the” looks at “the”: head 0 100.0 %")


def test_a_point_of_a_sweep_becomes_a_run(page: Any, board: Dashboard) -> None:
    page.goto(board.url + "?tab=sweep")
    expect(page.locator("#sweep-chart .main-svg").first).to_be_visible()
    expect(page.locator("#sweep-about")).to_contain_text("2 of 2 points")
    expect(page.locator("#sweep-chart .errorbar")).to_have_count(2)
    for kind in ("PNG", "SVG"):
        with page.expect_download() as saved:
            page.locator(f'#sweep-chart [data-title="Download plot as {kind}"]').click(force=True)
        assert saved.value.suggested_filename == f"sweep-swept.{kind.lower()}"
    rows = page.locator("#sweep-table tbody tr")
    expect(rows.nth(0)).to_contain_text(re.compile(r"30\.0 ± 2\.0\s*\+50\.0 %, within noise"))
    expect(rows.nth(1)).to_contain_text(re.compile(r"90\.0 ± 2\.0\s*\+350 %"))
    expect(rows.nth(1)).not_to_contain_text("noise")
    page.locator("#sweep-chart .points path").nth(1).click(force=True)
    expect(page.locator("#sweep-point input")).to_have_value("l2 · 40 % · local · seed 0 · 16 windows")
    page.locator("#sweep-run").click()
    expect(page.locator("#run-detail")).to_contain_text("l2")
    run = next(r for r in list_runs(board.runs_dir) if read_spec(r).goal == "prune")
    assert read_spec(run).prune.sparsity == 0.4
    launch.stop(run)
