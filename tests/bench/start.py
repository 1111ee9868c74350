"""How long until the dashboard answers, against an empty Gradio app, and until its page can be used."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.figure import Figure
from tests.browser.driver import Dashboard, chromium, free_port, start

EMPTY = """
import gradio as gr
with gr.Blocks() as app:
    gr.Markdown("empty")
app.launch(server_port={port}, quiet=True)
"""


def run(repeats: int = 5) -> list[Figure]:
    """Start both in turn, so that a busy machine disturbs them alike; medians."""
    empty, ours, usable = [], [], []
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        for _ in range(repeats):
            empty.append(_empty_app(Path(folder)))
            dashboard = Dashboard(Path(folder) / "runs")
            ours.append(dashboard.start())
            usable.append(_usable(browser, dashboard.url))
            dashboard.stop()
    a, b = statistics.median(ours), statistics.median(empty)
    return [
        Figure(
            "start of the dashboard / of an empty Gradio app",
            a / b,
            "at most",
            1.5,
            "x",
            f"{a:.2f} s / {b:.2f} s",
        ),
        Figure(
            "page usable after opening",
            statistics.median(usable),
            "at most",
            3,
            "s",
            f"{repeats} starts, median",
        ),
    ]


def _empty_app(folder: Path) -> float:
    port = free_port()
    code = EMPTY.format(port=port)
    process, seconds = start([sys.executable, "-c", code], f"http://127.0.0.1:{port}/", folder / "empty.log")
    process.terminate()
    process.wait(20)
    return seconds


def _usable(browser, url: str) -> float:  # type: ignore[no-untyped-def]
    """Seconds from opening the page until a click on a tab has shown its content."""
    page = browser.new_page()
    began = time.perf_counter()
    page.goto(url)
    page.get_by_role("tab", name="Runs").click()
    page.get_by_role("button", name="New run").first.wait_for(state="visible")
    seconds = time.perf_counter() - began
    page.close()
    return seconds
