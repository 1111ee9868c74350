"""A training is asked for in a real browser, and what is wrong with it is explained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import expect

from core.methods import with_preset
from core.spec import ModelSpec, RunSpec
from tests.browser.driver import Dashboard
from tests.pruneviz.samples import make_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Any) -> Iterator[Dashboard]:
    """A dashboard of its own, with one training that was stopped before it told anything."""
    app = Dashboard(tmp_path_factory.mktemp("training") / "runs", model=str(tiny_llama_folder))
    spec = replace(with_preset(RunSpec(), "nuteprune", "demo", 4), model=ModelSpec(app.model))
    make_run(app.runs_dir, "trained", spec, state="stopped", stage="train", with_graph=True)
    app.start()
    yield app
    app.stop()


def test_a_training_is_asked_for_in_the_form(page: Any, board: Dashboard) -> None:
    page.goto(board.url + "?tab=runs")
    expect(page.locator("#runs-table")).to_contain_text("nuteprune")
    page.get_by_role("button", name="New run").click()
    page.locator("#new-method input").click()
    page.get_by_role("option", name="nuteprune").click()
    expect(page.locator("#new-steps input")).to_have_value("150")
    expect(page.locator("#new-samples input")).to_have_value("600")
    asked = re.compile("--method nuteprune --preset demo")
    expect(page.locator("#new-command textarea")).to_have_value(asked)
    page.get_by_role("button", name="Every option of the training").click()
    field = page.locator("#new-options input[name=interval]")
    field.fill("0")
    field.blur()
    expect(page.locator("#new-preview")).to_contain_text("interval must be a number from 0.0001 to 1")
    page.get_by_text("Back to the preset").click()
    expect(page.locator("#new-command textarea")).to_have_value(asked)
