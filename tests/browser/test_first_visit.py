"""A first visit: every tab shows an example, six stops lead through them, and one's own takes their place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from core.errors import PruneError
from core.models.demo import demo_folder
from core.runs.watch import list_runs
from pruneviz import ASSETS
from pruneviz.context import TABS
from pruneviz.data.examples import read_examples
from tests.browser.driver import Dashboard

pytestmark = pytest.mark.browser
#: What of an example a tab draws.
DRAWN = {
    "model": "#model-parts .pv-bars",
    "structure": "#structure-map .pv-cell",
    "heads": "#heads-explorer canvas",
    "scores": "#scores-heat .main-svg",
    "sensitivity": "#sensitivity-chart .main-svg",
    "sweep": "#sweep-chart .main-svg",
    "runs": "#run-detail .pv-facts",
    "widths": "#widths-chart .main-svg",
    "compare": "#compare-table table",
}


@pytest.fixture(scope="module")
def visited(tmp_path_factory: Any) -> Iterator[Dashboard]:
    """A dashboard on the demo model with an empty runs folder."""
    try:
        demo_folder()
    except PruneError as error:
        pytest.skip(str(error))
    app = Dashboard(tmp_path_factory.mktemp("first") / "runs")
    app.start()
    yield app
    app.stop()


def test_every_tab_shows_an_example_that_is_marked(page: Any, visited: Dashboard) -> None:
    assert not read_examples(ASSETS / "examples").notes
    page.goto(visited.url)
    for name, title in TABS.items():
        page.get_by_role("tab", name=title, exact=True).click()
        expect(page.locator(DRAWN[name]).first).to_be_visible()
        expect(page.locator(".pv-example:visible").first).to_have_text("Example")


def test_the_stops_are_walked_by_keyboard_and_remembered(page: Any, visited: Dashboard) -> None:
    page.goto(visited.url)
    page.locator("#tour-next").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#structure-map .pv-cell").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("[data-stop=structure]")).to_have_accessible_name("✓ Structure, done")
    page.locator("#tour-next").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#heads-candidates p").first).to_be_visible()  # until then there is nothing to move
    expect(page.locator("#heads-tau")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tour-next")).to_have_text("Next: Scores")
    page.reload()
    expect(page.locator("#tour h2")).to_have_text("First visit: 2 of 6 stops done")
    page.locator("#tour-skip").click()
    page.reload()
    expect(page.locator("#tour-toggle")).to_be_visible()
    expect(page.locator("#tour section")).to_be_hidden()
    page.locator("#tour-toggle").click()
    expect(page.locator("#tour h2")).to_have_text("First visit: 2 of 6 stops done")


def test_a_stop_comes_into_sight_and_the_last_one_leaves_with_the_tab(page: Any, visited: Dashboard) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(visited.url)
    page.locator("[data-stop=sensitivity]").click()
    axis = page.locator("#sensitivity-scale input").first
    expect(axis).to_be_focused()
    expect(axis).to_be_in_viewport()
    expect(page.locator(".pv-tour.under-way")).to_have_count(1)
    page.evaluate("""() => {
      const stops = [...document.querySelectorAll("[data-stop]")].map((node) => node.dataset.stop);
      localStorage.setItem("pv-tour", JSON.stringify({done: stops, away: false}));
    }""")
    page.get_by_role("tab", name="Model", exact=True).click()
    expect(page.locator("#tour h2")).to_have_text("All 6 stops are done")
    expect(page.locator(".pv-tour.under-way")).to_have_count(0)


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_list_of_a_stop_leaves_its_words_readable(
    page: Any, visited: Dashboard, width: int, height: int
) -> None:
    page.set_viewport_size({"width": width, "height": height})
    page.goto(visited.url)
    page.locator("[data-stop=compare]").click()
    expect(page.locator("#compare-library input")).to_be_focused()
    first = page.locator("#compare-library [role=option]").first
    expect(first).to_be_in_viewport()
    words = page.locator(".pv-tour-words")
    expect(words).to_be_in_viewport(ratio=1)
    assert first.bounding_box()["y"] >= words.bounding_box()["y"] + words.bounding_box()["height"]


def test_ones_own_takes_the_place_of_the_example_which_can_be_chosen(page: Any, visited: Dashboard) -> None:
    page.goto(visited.url + "?tab=structure")
    page.locator("#structure-yours").click()
    expect(page.locator("#structure-example")).not_to_contain_text("Example", timeout=120_000)
    assert len(list_runs(visited.runs_dir)) == 1
    page.locator("#structure-other").click()
    expect(page.locator("#structure-example .pv-example")).to_be_visible()
    page.locator("#structure-other").click()
    expect(page.locator("#structure-example .pv-example")).to_have_count(0)
