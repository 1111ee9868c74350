"""A training is asked for in a real browser, watched, stopped, resumed, and looked at when it is done."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import expect

from core.methods import with_preset
from core.results import words
from core.runs.artifacts import EVENTS, read_plan
from core.runs.events import EventReader
from core.runs.status import ENDED, read_status
from core.runs.watch import list_runs
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from tests.browser.driver import Dashboard
from tests.conftest import WORDS
from tests.pruneviz.samples import make_run

pytestmark = pytest.mark.browser
LONG = 120_000
STEPS = 120


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Any) -> Iterator[Dashboard]:
    """A dashboard of its own, with one training that was stopped before it told anything."""
    app = Dashboard(tmp_path_factory.mktemp("training") / "runs", model=str(tiny_llama_folder))
    spec = replace(with_preset(RunSpec(), "nuteprune", "demo", 4), model=ModelSpec(app.model))
    own = {**spec.prune.options, "start_from": "taylor_first", "aggregation": "max"}
    spec = replace(spec, prune=replace(spec.prune, options=own))
    make_run(app.runs_dir, "trained", spec, state="stopped", stage="train", with_graph=True)
    app.start()
    yield app
    app.stop()


class Worker:
    """The process that trains: it sleeps while the page is looked at, so nothing depends on speed."""

    def __init__(self, run: Path) -> None:
        self.run, self.steps = run, 0
        self._events = EventReader(run / EVENTS)

    def look(self) -> int:
        """Steps told so far."""
        told = [event.data["step"] for event in self._events.read() if event.data.get("name") == "train.kl"]
        self.steps = max([self.steps, *told])
        return self.steps

    @contextmanager
    def asleep_after(self, steps: int) -> Iterator[int]:
        """Sleeps from some step after so many on; gives the number of that step."""
        while self.look() < steps:
            assert read_status(self.run).state not in ENDED, read_status(self.run)
            time.sleep(0.05)
        process = psutil.Process(read_status(self.run).pid)
        process.suspend()
        try:
            yield self.look()
        finally:
            process.resume()


def last_drawn(plot: Any) -> int:
    """The last step that a figure of curves shows."""
    return int(plot.evaluate("plot => Math.max(...plot.data[0].x)"))


def fill(page: Any, values: dict[str, str]) -> None:
    """Fill in fields of the form; each is looked at until it holds what was typed."""
    for field, value in values.items():
        box = page.locator(f"{field} input:not([type=range]), {field} textarea, input{field}").first
        expect(box).to_be_editable()
        box.fill(value)
        box.blur()
        expect(box).to_have_value(value)


def open_form(page: Any, board: Dashboard) -> None:
    """The New run form, filled in with the preset of a training."""
    page.goto(board.url + "?tab=runs")
    expect(page.locator("#runs-table")).to_contain_text("nuteprune")
    page.get_by_role("button", name="New run").click()
    page.locator("#new-method input").click()
    page.get_by_role("option", name="nuteprune").click()
    expect(page.locator("#new-samples input")).to_have_value("600")


def test_a_training_is_asked_for_in_the_form(page: Any, board: Dashboard) -> None:
    open_form(page, board)
    expect(page.locator("#new-steps input")).to_have_value("150")
    asked = re.compile("--method nuteprune --preset demo")
    expect(page.locator("#new-command textarea")).to_have_value(asked)
    page.get_by_role("button", name="Every option of the method").click()
    field = page.locator("#new-options input[name=interval]")
    field.fill("0")
    field.blur()
    expect(page.locator("#new-preview")).to_contain_text("interval must be a number from 0.0001 to 1")
    page.get_by_text("Back to the preset").click()
    expect(page.locator("#new-command textarea")).to_have_value(asked)


def test_a_criterion_is_told_its_own_options_in_the_form(page: Any, board: Dashboard) -> None:
    open_form(page, board)
    command = page.locator("#new-command textarea")

    def choose(method: str) -> None:
        page.locator("#new-method input").click()
        page.get_by_role("option", name=method, exact=True).click()

    choose("taylor_vector")
    expect(command).to_have_value(re.compile("--method taylor_vector"))
    page.get_by_role("button", name="Every option of the method").click()
    page.locator("#new-options select[name=vector]").select_option("structure")
    expect(command).to_have_value(re.compile("--set vector=structure"))
    page.get_by_text("Back to the defaults").click()
    expect(command).not_to_have_value(re.compile("--set"))
    choose("l2")
    expect(page.locator("#new-every-option")).not_to_be_visible()


def test_a_preset_of_the_paper_fills_in_what_it_says(page: Any, board: Dashboard) -> None:
    open_form(page, board)
    fill(page, {"#new-sparsity": "0.3"})

    def choose(preset: str) -> None:
        page.locator("#new-preset input").click()
        page.get_by_role("option", name=preset, exact=True).click()

    choose("paper-7b-50")
    expect(page.locator("#new-samples input")).to_have_value("20000")
    expect(page.locator("#new-sparsity textarea, #new-sparsity input").first).to_have_value("0.5")
    expect(page.locator("#new-kinds input:checked")).to_have_count(3)
    expect(page.locator("#new-command textarea")).to_have_value(
        re.compile("--method nuteprune --preset paper-7b-50 --sparsity 0.5$")
    )
    choose("demo")
    expect(page.locator("#new-kinds input:checked")).to_have_count(2)
    expect(page.locator("#new-command textarea")).to_have_value(
        re.compile("--method nuteprune --preset demo --sparsity 0.5$")
    )


def test_a_clone_asks_for_the_same_of_the_criterion_it_starts_from(page: Any, board: Dashboard) -> None:
    page.goto(board.url + "?tab=runs&run=trained")
    expect(page.locator("#run-detail")).to_contain_text("trained")
    page.locator("#run-clone").click()
    command = page.locator("#new-command textarea")
    expect(command).to_have_value(re.compile("--set steps=4 .*--set aggregation=max"))
    expect(page.locator("#new-launch")).to_be_enabled()
    page.get_by_role("button", name="Every option of the method").click()
    expect(page.locator("#new-options select[name=aggregation]")).to_have_value("max")
    fill(page, {"[name=start_from]": "l2"})
    expect(command).to_have_value(re.compile("--set start_from=l2"))
    expect(command).not_to_have_value(re.compile("aggregation"))


def test_a_training_is_watched_stopped_resumed_and_looked_at(
    page: Any, board: Dashboard, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(" ".join(random.Random(0).choices(WORDS.split(), k=4000)))
    open_form(page, board)
    page.get_by_role("button", name="Every option of the method").click()
    page.locator("#new-options select[name=distillation]").select_option("progressive")
    fill(page, {"[name=batch]": "2", "[name=held]": "2"})
    fill(page, {"#new-steps": str(STEPS), "#new-samples": "16", "#new-length": "16"})
    fill(page, {"#new-calibration": str(text), "#new-ppl": str(text)})
    expect(page.locator("#new-command textarea")).to_have_value(re.compile(f"held=2.*--ppl {text}"))
    before = set(list_runs(board.runs_dir))
    page.locator("#new-launch").click()
    expect(page.locator("#run-detail .pv-badge")).to_have_text(re.compile("starting|running"))
    expect(page.locator("#run-box")).to_be_in_viewport()
    (run,) = set(list_runs(board.runs_dir)) - before
    worker = Worker(run)
    with worker.asleep_after(20) as first:
        expect(page.locator("#training-facts")).to_contain_text(f"{first} of {STEPS}")
        expect(page.locator("#training-curves .scatterlayer .trace").first).to_be_visible()
        expect(page.locator("#training-curves .heatmaplayer image")).to_have_count(1)  # the teachers
        expect(page.locator("#training-masks .heatmaplayer image")).to_have_count(2)  # heads and channels
        expect(page.locator("#training-about-masks")).to_contain_text(f"of {STEPS}")
        plot = page.locator("#training-curves .pv-plot").element_handle()
        drawn = last_drawn(plot)
        plot.evaluate("plot => { plot.style.display = 'none'; }")
    with worker.asleep_after(first + 20) as later:
        expect(page.locator("#training-facts")).to_contain_text(f"{later} of {STEPS}")  # by itself
        assert last_drawn(plot) == drawn, "nobody sees it"
        plot.evaluate("plot => { plot.style.display = ''; }")
        page.wait_for_function("([plot, step]) => Math.max(...plot.data[0].x) >= step", arg=[plot, later])
        page.locator("#run-stop").click()
        expect(page.locator("#run-detail")).to_contain_text("The step at work is finished and saved first")
    expect(page.locator("#run-detail")).to_contain_text(
        re.compile(rf"Stopped after step \d+ of {STEPS}, which is saved. Resume goes on after it.")
    )
    assert worker.look() < STEPS
    expect(page.locator("#run-stop")).to_be_disabled()
    page.locator("#run-resume").click()
    expect(page.locator("#run-detail .pv-badge")).to_have_text("finished", timeout=LONG)
    expect(page.locator("#training-facts")).to_contain_text(f"{STEPS} of {STEPS}")
    page.locator("#run-widths").click()
    expect(page.locator("#widths-chart .bars .point")).to_have_count(4)  # two parts of two layers
    gone = sum(len(units) for group, units in read_plan(run).removed.items() if "ffn" in group)
    expect(page.locator("#widths-summary")).to_contain_text(words.percent(1 - gone / (2 * 48)))
    expect(page).to_have_url(re.compile("tab=widths"))
    expect(page.locator('[clip-path*="://"]')).to_have_count(0)  # or the new address hides what is drawn
    expect(page.locator("[data-testid=toast-body]")).to_have_count(0)
    page.locator("#tab-runs-button").click()
    plot = page.locator("#training-curves .pv-plot").element_handle()
    page.locator('#runs-table a[data-run="trained"]').click()
    expect(page.locator("#training-curves")).to_have_count(0)
    page.wait_for_function(
        "plot => !plot.isConnected && !plot.data && !plot._fullLayout", arg=plot
    )  # all let go
