"""The field on /present in a real browser: asked, voted, stopped, refused; the server is the app itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from starlette.testclient import TestClient

from pruneviz.context import AppContext
from tests.browser.driver import chromium, find_browser
from tests.pruneviz.actions.test_answers import FakeEngine
from tests.pruneviz.samples import MEASURED, make_run
from tests.pruneviz.test_present import serving

pytestmark = pytest.mark.browser
HOME = "http://127.0.0.1:1"
PROMPT = "<img src=x onerror=window.pwned=1>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if find_browser() is None:
        pytest.skip("no Chromium or Chrome on the PATH")
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """A page whose requests the app answers, each as a whole."""
    (make_run(tmp_path, "a", metrics=MEASURED) / "model").mkdir()
    app = AppContext(tmp_path)
    app._engine = FakeEngine()  # type: ignore[assignment]
    client = TestClient(serving(app), base_url=HOME)
    opened = browser.new_page(viewport={"width": 390, "height": 844})

    def answer(route: Any) -> None:
        asked = route.request
        reply = client.request(asked.method, asked.url, content=asked.post_data_buffer, headers=asked.headers)
        route.fulfill(status=reply.status_code, headers=dict(reply.headers), body=reply.content)

    opened.route(f"{HOME}/**", answer)
    yield opened
    opened.close()


def ask_slide(page: Any, options: str = "") -> str:
    """Open the slide with the field by the keyboard; its place."""
    page.goto(f"{HOME}/present?run=a{options}")
    page.locator("#place").wait_for()
    while not page.locator("#asking").is_visible():
        page.keyboard.press("ArrowRight")
    return str(page.locator("#place").inner_text())


def test_enter_asks_and_keys_move_in_the_text_alone(page: Any) -> None:
    place = ask_slide(page)
    page.locator("#asking-prompt").fill(PROMPT)
    for key in ("ArrowLeft", "Home", "PageDown", " "):
        page.keyboard.press(key)
    assert page.locator("#place").inner_text() == place
    page.keyboard.press("Enter")
    answers = page.locator("#asking-answers .pv-answer-text")
    expect(answers).to_have_count(2)
    expect(answers.last).to_contain_text(PROMPT)
    expect(page.locator("#asking-state")).to_be_empty()
    assert page.evaluate("window.pwned === undefined && document.documentElement.scrollWidth <= 390")


def test_a_blind_round_is_voted_on(page: Any) -> None:
    ask_slide(page, "&blind=1")
    page.locator("#asking-prompt").fill("Hi")
    page.locator("#asking-go").click()
    page.get_by_role("button", name="A is better").wait_for()
    expect(page.locator("#asking-answers")).not_to_contain_text("Dense")
    page.get_by_role("button", name="A is better").click()
    expect(page.locator("#asking-answers")).to_contain_text("Dense model")
    expect(page.locator("#asking-answers")).to_contain_text("1 of 1 (21 to 100 %)")


def test_what_is_refused_or_goes_wrong_is_said(page: Any) -> None:
    ask_slide(page)
    page.locator("#asking-go").click()
    expect(page.get_by_role("alert")).to_have_text("Type a prompt first.")
    page.locator("#asking-prompt").fill("x" * 4001)
    page.locator("#asking-go").click()
    expect(page.get_by_role("alert")).to_contain_text("at most 4,000 characters, got 4,001")
    page.route("**/answers", lambda route: route.abort())
    page.locator("#asking-go").click()
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")


def test_stop_ends_the_wait(page: Any) -> None:
    ask_slide(page)
    page.route("**/answers", lambda route: None)  # never answered
    page.locator("#asking-prompt").fill("Hi")
    page.keyboard.press("Enter")
    expect(page.locator("#asking-go")).to_be_disabled()
    page.keyboard.press("Escape")
    expect(page.get_by_role("alert")).to_have_text("Stopped.")
    expect(page.locator("#asking-go")).to_be_enabled()
