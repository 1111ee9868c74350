"""What a person does in a real browser, on a tiny model: analyse, look, prune, reload, restart, compare."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from core.files import read_json
from core.results.sensitivity import read_sensitivity
from core.results.similarity import read_similarity
from core.runs.artifacts import EVENTS, read_graph, read_spec
from core.runs.events import EventWriter
from core.runs.watch import list_runs
from core.spec.run import RunSpec
from tests.browser.driver import Dashboard
from tests.pruneviz.samples import make_run

pytestmark = pytest.mark.browser
LONG = 120_000
#: What an empty tab offers to do next.
NEXT = {
    "Structure": "#structure-launch",
    "Heads": "#heads-launch",
    "Sensitivity": "#sensitivity-launch",
    "Runs": "#new-run",
    "Widths": "#widths-to-runs",
    "Compare": "#compare-to-runs",
    "Model": "#model-analyse",
}


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def open_form(page: Any, dashboard: Dashboard) -> None:
    """The Runs tab with the New run form unfolded."""
    page.goto(dashboard.url + "?tab=runs")
    expect(page.locator("#runs-table")).to_contain_text("explore")
    if not page.locator("#new-launch").is_visible():
        page.get_by_role("button", name="New run").click()


def type_into(field: Any, text: str) -> None:
    """Type as a person does: again, if the page was still being put together and took the text away."""
    for _ in range(3):
        field.fill(text)
        field.blur()
        field.page.wait_for_timeout(500)
        if field.input_value() == text:
            return
    expect(field).to_have_value(text)


def open_model(page: Any, source: str) -> None:
    """Open a model by what a person types."""
    expect(page.locator("#model-card")).to_contain_text("Parameters")
    type_into(page.locator("#model-source textarea, #model-source input").first, source)
    page.locator("#model-open").click()


def finished(dashboard: Dashboard, goal: str) -> Path:
    """The one run with this goal."""
    return next(run for run in list_runs(dashboard.runs_dir) if read_spec(run).goal == goal)


@pytest.fixture(scope="module")
def explored(browser: Any, dashboard: Dashboard) -> Path:
    """The run directory of an analysis started by a click on the Model tab."""
    page = browser.new_page()
    page.goto(dashboard.url)
    expect(page.locator("#model-analyses")).to_contain_text("not yet")
    page.locator("#model-analyse").click()
    expect(page.locator("#model-analyses")).not_to_contain_text("not yet", timeout=LONG)
    page.close()
    return finished(dashboard, "explore")


def test_every_empty_tab_offers_the_next_action(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url + "?tab=structure")
    for name, action in NEXT.items():
        open_tab(page, name)
        expect(page.locator(action)).to_be_visible()
        expect(page).to_have_url(re.compile(f"tab={name.lower()}"))


def test_an_unknown_model_is_refused_in_words(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url)
    open_model(page, "/no/such/folder")
    refused = "There is no folder or file /no/such/folder"  # the engine comes up first
    expect(page.locator("#model-state")).to_contain_text(refused, timeout=LONG)
    expect(page.locator("#model-give-up")).to_be_hidden()


def test_a_model_that_does_not_come_can_be_given_up(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url)
    open_model(page, "some/model")
    expect(page.locator("#model-state")).to_contain_text("Looking for some/model")
    page.locator("#model-give-up").click()
    expect(page.locator("#model-state")).to_contain_text("being read", timeout=LONG)
    expect(page.locator("#model-state [role=alert]")).to_have_count(0)
    expect(page.locator("#model-give-up")).to_be_hidden()


def test_structure_shows_what_goes_with_a_unit(page: Any, dashboard: Dashboard, explored: Path) -> None:
    page.goto(dashboard.url + "?tab=structure")
    page.locator('#structure-map .pv-cell[data-group="L01.ffn_channel"]').click()
    expect(page.locator("#structure-where")).to_contain_text("FFN channels, layer 1")
    page.locator("#structure-units canvas").press("Enter")
    members = page.locator("#structure-members")
    graph = read_graph(explored)
    for member in graph.group("L01.ffn_channel").members:
        expect(members).to_contain_text(member.parameter.removesuffix(".weight").split(".")[-1])
    expect(page.locator("#structure-cost dd").first).to_have_text(re.compile(r"^\s*960\.489 %"))  # 3 x 32


def test_tau_redraws_without_asking_the_server(page: Any, dashboard: Dashboard, explored: Path) -> None:
    page.goto(dashboard.url + "?tab=heads&layer=1&tau=0.05")
    slider = page.locator("#heads-tau")
    expect(page.locator("#heads-layer")).to_have_text("Layer 1")
    page.wait_for_timeout(1500)  # whatever opening the tab asked for
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    candidates = page.locator("#heads-candidates")
    few = candidates.inner_text()
    slider.evaluate("(e) => { e.value = 0.9; e.dispatchEvent(new Event('input', {bubbles: true})); }")
    expect(candidates).not_to_have_text(few)
    page.wait_for_timeout(600)
    expect(page).to_have_url(re.compile(r"tau=0\.9"))
    assert not asked, asked


def test_algorithm_1_on_the_page_is_the_engines(page: Any, dashboard: Dashboard, explored: Path) -> None:
    from core.results.similarity import algorithm_1

    divergence = read_similarity(explored).divergence[0]
    for tau in (0.1, 0.3, 0.9):
        page.goto(dashboard.url + f"?tab=heads&layer=0&tau={tau}")
        expect(page.locator("#heads-layer")).to_have_text("Layer 0")
        shown = page.locator("#heads-candidates p").inner_text()
        heads = re.search(r"heads? ([\d, ]+) of layer 0", shown)
        listed = [int(head) for head in heads[1].split(",")] if heads else []
        assert listed == algorithm_1(divergence, tau), (tau, shown)


def test_sensitivity_shows_every_layer(page: Any, dashboard: Dashboard, explored: Path) -> None:
    page.goto(dashboard.url + "?tab=sensitivity")
    expect(page.locator("#sensitivity-chart .main-svg").first).to_be_visible()
    found = read_sensitivity(explored)
    expect(page.locator("#sensitivity-content")).to_contain_text(f"{found.baseline_ppl:,.1f}")


def test_a_wrong_sparsity_is_explained_at_once(page: Any, dashboard: Dashboard, explored: Path) -> None:
    open_form(page, dashboard)
    expect(page.locator("#new-preview")).to_contain_text("%")
    type_into(page.locator("#new-sparsity input"), "20")
    expect(page.get_by_text("write 0.2 for 20 %").first).to_be_visible()


def test_curves_come_to_a_run_that_was_opened_before_it_had_any(page: Any, dashboard: Dashboard) -> None:
    shutil.rmtree(dashboard.runs_dir / "early", ignore_errors=True)  # of a first try
    run = make_run(dashboard.runs_dir, "early", RunSpec(goal="evaluate"), state="stopped")
    page.goto(dashboard.url + "?tab=runs&run=early")
    expect(page.locator("#run-detail")).to_contain_text("early")
    events = EventWriter(run / EVENTS)
    for step in range(3):
        events.write("metric", "evaluate", name="ppl", step=step, value=30.0 - step)
    events.close()
    page.locator("#runs-refresh").click()
    expect(page.locator("#run-curves .main-svg").first).to_be_visible()
    expect(page.locator("#runs-sent.pv-memory")).to_have_count(1)
    seen = "(boxes) => boxes.filter((box) => box.checkVisibility()).length"
    assert page.locator(".pv-memory").evaluate_all(seen) == 0
    shutil.rmtree(run)


def test_prune_reload_restart_compare(page: Any, dashboard: Dashboard, explored: Path) -> None:
    open_form(page, dashboard)
    expect(page.locator("#new-preview")).to_contain_text("%")
    page.locator("#new-launch").click()
    expect(page.locator("#run-detail")).to_contain_text("taylor_second", timeout=LONG)
    page.reload()
    expect(page.locator("#runs-table")).to_contain_text("taylor_second")
    dashboard.stop()
    dashboard.start()
    page.goto(dashboard.url + "?tab=runs")
    expect(page.locator("#runs-table")).to_contain_text("finished", ignore_case=True, timeout=LONG)
    expect(page.locator("#run-detail")).to_contain_text(re.compile("finished", re.I), timeout=LONG)
    metrics = read_json(finished(dashboard, "prune") / "metrics.json")
    open_tab(page, "Compare")
    expect(page.locator("#compare-table")).to_contain_text(f"{metrics['params_after']:,}")
    page.locator("#compare-go").click()
    speed = page.locator("#compare-answers .pv-speed").nth(1)
    expect(speed).not_to_contain_text("kept", timeout=LONG)
    expect(speed).to_contain_text("tokens/s", timeout=LONG)
    assert page.locator("#compare-answers .pv-answer-text").first.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_system_theme(browser: Any, dashboard: Dashboard, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(dashboard.url)
    page.get_by_role("tab", name="Runs").wait_for()
    level = """() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3)
                     .reduce((sum, part) => sum + Number(part), 0)"""
    page.wait_for_function(f"({level})() {'>' if scheme == 'light' else '<'} 380", timeout=30_000)
    context.close()
