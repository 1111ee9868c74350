"""The Structure tab in a real browser: zoom in, choose units, see their cost, try them, launch them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from core.files import read_json
from core.plan.cost import cost
from core.runs import launch
from core.runs.artifacts import METRICS, read_graph, read_plan, read_spec
from core.runs.watch import list_runs
from core.spec.explore import ExploreSpec
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from core.stages.worker import execute
from tests.browser.driver import Dashboard

pytestmark = pytest.mark.browser
LONG = 120_000


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Any:
    """A dashboard of its own, on a model whose groups are known."""
    runs = tmp_path_factory.mktemp("structure") / "runs"
    spec = RunSpec(
        goal="explore", model=ModelSpec(str(tiny_llama_folder), "cpu"), explore=ExploreSpec(("groups",))
    )
    execute(launch.create(runs, spec, mine=True))
    app = Dashboard(runs, model=str(tiny_llama_folder))
    app.start()
    yield app
    app.stop()


def sums(page: Any) -> list[int]:
    """The parameters in the card of chosen units."""
    text = page.locator("#structure-chosen dd").first.inner_text()
    return [int(number.replace(",", "")) for number in re.findall(r"^−([\d,]+)", text)]


def test_units_are_chosen_summed_tried_and_pruned(page: Any, own: Dashboard) -> None:
    page.goto(own.url + "?tab=structure")
    expect(page.locator("#structure-kinds")).to_contain_text("What this model is made of", timeout=LONG)
    graph = read_graph(list_runs(own.runs_dir)[0])
    page.locator('#structure-map .pv-cell[data-group="L01.ffn_channel"]').click()
    expect(page.locator("#structure-where")).to_contain_text("FFN channels, layer 1")

    field, choose = (
        page.locator("#structure-numbers input, #structure-numbers textarea"),
        page.locator("#structure-choose"),
    )
    field.fill("5-2")
    choose.click()
    expect(page.locator("#structure-said")).to_contain_text("The range 5-2 runs backwards; write 2-5.")
    field.fill("2-5, 47")
    choose.click()
    expect(page.locator("#structure-chosen")).to_contain_text("5 chosen units")
    canvas = page.locator("#structure-units canvas")
    canvas.focus()
    for key in ("Home", "ArrowRight", "Space", "Enter"):  # choose unit 1, then look at it
        canvas.press(key)
    expect(page.locator("#structure-chosen")).to_contain_text("6 chosen units")
    expect(page.locator("#structure-where")).to_contain_text("FFN channel 1, layer 1")

    page.locator("#structure-drawing g[data-parameter*=gate_proj]").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    for word in ("mlp.gate_proj", "silu", "mul", "mlp.up_proj"):
        expect(page.locator("#structure-path")).to_contain_text(word)

    page.locator('#structure-map .pv-cell[data-group="L00.query_head"]').click()
    expect(page.locator("#structure-where")).to_contain_text("Query heads, layer 0")
    page.locator("#structure-all").click()
    expect(page.locator("#structure-chosen")).to_contain_text("One unit of every group must stay")
    expect(page.locator("#structure-prune")).to_be_disabled()
    page.locator("#structure-clear").click()
    expect(page.locator("#structure-chosen")).to_contain_text("6 chosen units")
    field.fill("3")
    choose.click()
    expect(page.locator("#structure-chosen")).to_contain_text("7 chosen units")

    chosen = {"L00.query_head": (3,), "L01.ffn_channel": (1, 2, 3, 4, 5, 47)}
    saved = cost(graph, {}).params - cost(graph, chosen).params
    assert sums(page) == [saved]
    page.reload()
    expect(page.locator("#structure-chosen")).to_contain_text("7 chosen units", timeout=LONG)
    assert sums(page) == [saved]

    page.locator("#structure-try").click()
    expect(page.locator("#structure-measured")).to_contain_text(
        re.compile(r"[+−0][\d.,]* ?%|×"), timeout=LONG
    )
    assert page.locator("#structure-masked textarea").input_value()

    page.locator("#structure-prune").click()
    expect(page.locator("#new-command textarea")).to_have_value(
        re.compile("--units L00.query_head=3 --units L01.ffn_channel=1-5,47"), timeout=LONG
    )
    expect(page.locator("#new-preview")).to_contain_text("Exact")
    page.locator("#new-launch").click()
    expect(page.locator("#run-detail")).to_contain_text("-manual", timeout=LONG)
    expect(page.locator("#run-detail")).to_contain_text(re.compile("finished", re.I), timeout=LONG)
    run = next(run for run in list_runs(own.runs_dir) if read_spec(run).goal == "prune")
    assert read_plan(run).removed == chosen
    metrics = read_json(run / METRICS)
    assert metrics["params_before"] - metrics["params_after"] == saved
