"""axe-core has nothing serious to say of any tab, in either theme."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.driver import Dashboard
from tests.browser.screenshots import TABS
from tests.browser.test_first_visit import DRAWN

pytestmark = [pytest.mark.browser, pytest.mark.slow]
GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def first_visit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard on the demo model without a run: every tab shows its example."""
    app = Dashboard(tmp_path_factory.mktemp("accessible") / "runs")
    app.start()
    yield app
    app.stop()


#: What a visitor comes with: the theme, and the width of a desk or of a phone.
VISITS = [("light", 1400), ("dark", 1400), ("dark", 390)]


@pytest.fixture(params=VISITS, ids=lambda visit: f"{visit[0]} {visit[1]}")
def visitor(request: Any, browser: Any) -> Iterator[Any]:
    """Opens pages."""
    theme, width = request.param
    context = browser.new_context(viewport={"width": width, "height": 950}, color_scheme=theme)
    yield context
    context.close()


def grave(page: Any) -> list[tuple[str, int, list[str]]]:
    """What axe calls serious or worse: the rule, how often, and where."""
    from axe_playwright_python.sync_playwright import Axe

    return [
        (broken["id"], len(broken["nodes"]), [node["html"][:150] for node in broken["nodes"][:3]])
        for broken in Axe().run(page).response["violations"]
        if broken["impact"] in GRAVE
    ]


def test_axe_reports_nothing_serious(visitor: Any, first_visit: Dashboard) -> None:
    said: dict[str, Any] = {}
    for tab in TABS:
        page = visitor.new_page()
        page.goto(f"{first_visit.url}?tab={tab}")
        page.locator(".pv-tour").wait_for()
        page.locator(DRAWN[tab]).first.wait_for(timeout=60_000)
        page.wait_for_timeout(2000)  # what a tab shows comes in pieces
        said |= {tab: grave(page)}
        page.close()
    assert not any(said.values()), said


def test_axe_reports_nothing_serious_of_the_slides(visitor: Any, first_visit: Dashboard) -> None:
    page = visitor.new_page()
    page.goto(f"{first_visit.url}present?run=example-recommended-20,example-nuteprune-20")
    for _ in range(page.locator("section").count()):
        assert grave(page) == []
        page.keyboard.press("ArrowRight")
