"""Compare fills the screen for an audience, and is left again with all that was chosen."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.driver import Dashboard

pytestmark = pytest.mark.browser


def test_compare_fills_the_screen_until_escape_or_another_tab(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url + "?tab=compare&model=demo&models=dense,example-recommended-20")
    button, answers = page.locator("#compare-full button"), page.locator("#compare-answers")
    expect(answers).to_contain_text("The recommended recipe")
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_text("Leave full screen")
    assert page.evaluate("document.fullscreenElement === document.documentElement")
    expect(page.locator("#header")).to_be_hidden()
    expect(answers).to_contain_text("The recommended recipe")
    page.keyboard.press("Escape")
    expect(button).to_have_text("Full screen")
    expect(page.locator("#header")).to_be_visible()
    button.click()
    expect(page.locator("html")).to_have_class("pv-full")
    page.evaluate("window.pvTab('model').click()")
    expect(page.locator("#header")).to_be_visible()
    assert not page.evaluate("Boolean(document.fullscreenElement)")
