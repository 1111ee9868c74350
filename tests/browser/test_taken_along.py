"""What somebody takes along: a table as CSV, a figure as PNG and SVG, a report on paper."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from core.cli.app import main
from tests.browser.driver import ROOT, Dashboard
from tests.pruneviz.samples import MEASURED, make_run

pytestmark = pytest.mark.browser
EXAMPLES = ROOT / "assets" / "examples"


def test_a_table_and_a_figure_are_files(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url + "?tab=compare&model=demo&run=example-taylor_first-20")
    expect(page.locator("#compare-table [data-csv]")).to_have_css("text-decoration-line", "underline")
    with page.expect_download() as saved:
        page.locator("#compare-table [data-csv]").click()
    rows = list(csv.reader(Path(saved.value.path()).read_text(encoding="utf-8").splitlines()))
    shown = page.locator("#compare-table tbody tr")
    assert saved.value.suggested_filename == "compare.csv" and len(rows) == shown.count() + 1
    (parameters,) = (row for row in rows if row[0] == "Parameters")
    assert parameters[1:] == ["134.5 M", "113.3 M \N{MINUS SIGN}15.8 % better"]
    expect(page.locator("#compare-costs .main-svg").first).to_be_visible()
    for words, begins in (("png", b"\x89PNG"), ("SVG", b"<svg")):
        page.locator("#compare-costs").hover()
        with page.expect_download() as saved:
            page.locator(f"#compare-costs [data-title*='{words}' i]").click()
        assert Path(saved.value.path()).read_bytes().startswith(begins)


def test_a_report_fits_on_paper_whatever_the_theme(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    runs = [str(EXAMPLES / name) for name in ("example-taylor_first-20", "example-analysis")]
    assert main(["report", *runs, "--out", str(file)]) == 0
    page = browser.new_page(color_scheme="dark", viewport={"width": 720, "height": 1000})
    page.goto(file.as_uri())
    assert len(re.findall(rb"/Type /Page\b", page.pdf(format="A4"))) in range(2, 9)
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.close()


def test_a_run_is_deleted_after_a_question(page: Any, dashboard: Dashboard) -> None:
    kept, gone = (make_run(dashboard.runs_dir, name, metrics=MEASURED) for name in ("kept", "gone"))
    page.goto(dashboard.url + "?tab=runs&run=gone")
    page.locator("#run-delete").click()
    expect(page.locator("#run-deleting-about")).to_contain_text("Delete gone with all its files?")
    page.locator("#run-delete-keep").click()
    expect(page.locator("#run-delete-go")).to_be_hidden()
    page.locator("#run-delete").focus()
    page.keyboard.press("Enter")
    page.locator("#run-delete-go").click()
    expect(page.locator("#runs-table [data-run=gone]")).to_have_count(0)
    expect(page.locator("#run-delete-go")).to_be_hidden()
    assert kept.is_dir() and not gone.exists()
    page.goto(dashboard.url + "?tab=runs&run=example-recommended-20")
    expect(page.locator("#run-clone")).to_be_enabled()
    expect(page.locator("#run-delete")).to_be_disabled()


def test_long_names_in_a_legend_go_on_in_the_next_line_of_a_phone(page: Any, dashboard: Dashboard) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(dashboard.url + "?tab=compare&model=demo&models=dense,example-taylor_first-20")
    names = page.locator("#compare-costs .legendtext")
    expect(names).to_have_count(2)
    assert names.nth(1).locator("tspan").count() == 2, names.nth(1).text_content()
    right = page.locator("#compare-costs .pv-plot").evaluate("(plot) => plot.getBoundingClientRect().right")
    for name in names.all():
        assert name.evaluate("(text) => text.getBoundingClientRect().right") <= right
