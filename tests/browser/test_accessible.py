"""axe-core has nothing serious to say of any tab, in either theme."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.driver import Dashboard
from tests.browser.screenshots import TABS

pytestmark = [pytest.mark.browser, pytest.mark.slow]
GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def first_visit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard on the demo model without a run: every tab shows its example."""
    app = Dashboard(tmp_path_factory.mktemp("accessible") / "runs")
    app.start()
    yield app
    app.stop()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_reports_nothing_serious(theme: str, browser: Any, first_visit: Dashboard) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context, said = browser.new_context(viewport={"width": 1400, "height": 950}, color_scheme=theme), []
    for tab in TABS:
        page = context.new_page()
        page.goto(f"{first_visit.url}?tab={tab}")
        page.locator(".pv-tour").wait_for()
        page.wait_for_timeout(4000)  # what a tab shows comes in pieces
        for violation in Axe().run(page).response["violations"]:
            if violation["impact"] in GRAVE:
                where = [node["html"][:150] for node in violation["nodes"][:3]]
                said.append((tab, violation["id"], len(violation["nodes"]), where))
        page.close()
    context.close()
    assert said == []
