"""`make screenshots`: every tab in both themes as a first visit shows it, and sliders that move."""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from tests.browser.driver import ROOT, Dashboard, chromium

#: tab -> address after the `?`, and what has to be on the page before the picture is taken.
TABS = {
    "model": ("tab=model", "#model-parts:has-text('%')"),
    "structure": (
        "tab=structure&unit=L04.query_head/4&units=L04.query_head%3D4+L12.ffn_channel%3D0-63",
        "#structure-drawing svg",
    ),
    "heads": ("tab=heads&layer=8&tau=0.2", "#heads-explorer canvas, #heads-explorer svg"),
    "scores": ("tab=scores", "#scores-heat .main-svg"),
    "sensitivity": ("tab=sensitivity", "#sensitivity-chart .main-svg"),
    "sweep": ("tab=sweep", "#sweep-chart .main-svg"),
    "runs": ("tab=runs", "#run-detail"),
    "widths": ("tab=widths", "#widths-chart .main-svg"),
    "compare": ("tab=compare", "#compare-table table"),
}
SIZE = {"width": 1400, "height": 1000}
SETTLE_MS = 2500
#: As for somebody who has been here before.
NO_TOUR = """localStorage.setItem("pv-tour", '{"done": [], "away": true}')"""
#: The moving picture: tab -> the slider that moves there, from, to, and what of the page is seen.
MOVING = {
    "heads": ("#heads-tau", 0.05, 0.45, "#heads-explorer"),
    "sensitivity": ("#budget-slider", 50, 600, "#sensitivity-budget"),
}
STEPS, FRAME_MS, LAST_MS = 14, 110, 1200
SEEN = {"width": 1100, "height": 640}
MOVE = """(range, value) => {
  range.value = value;
  range.dispatchEvent(new Event("input", {bubbles: true}));
}"""


def main() -> None:
    """Take all pictures, of a dashboard that has nothing but the examples."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, default=ROOT / "assets" / "screenshots")
    out = arguments.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        dashboard = Dashboard(Path(name) / "runs")
        dashboard.start()
        try:
            with chromium() as browser:
                for path in pictures(browser, dashboard.url, out):
                    print(path, flush=True)
                print(moving(browser, dashboard.url, out / "sliders.webp"), flush=True)
        finally:
            dashboard.stop()


def pictures(browser: Any, url: str, out: Path) -> Iterator[Path]:
    """Take them one by one."""
    for theme in ("light", "dark"):
        context = browser.new_context(viewport=SIZE, color_scheme=theme)
        context.add_init_script(NO_TOUR)
        for tab in TABS:
            page = opened(context, url, tab)
            path = out / f"{tab}-{theme}.png"
            page.screenshot(path=path, full_page=True)
            page.close()
            yield path
        context.close()


def opened(context: Any, url: str, tab: str) -> Any:
    """A page with a tab that is drawn."""
    query, wanted = TABS[tab]
    page = context.new_page()
    page.goto(f"{url}?{query}")
    page.locator(wanted).first.wait_for(state="visible", timeout=60_000)
    page.wait_for_timeout(SETTLE_MS)
    return page


def moving(browser: Any, url: str, path: Path) -> Path:
    """Move the sliders of `MOVING`, a frame for each step."""
    frames, lengths = list[Image.Image](), list[int]()
    context = browser.new_context(viewport=SEEN, color_scheme="light")
    context.add_init_script(NO_TOUR)
    for tab, (slider, first, last, seen) in MOVING.items():
        page = opened(context, url, tab)
        page.evaluate("(place) => document.querySelector(place).scrollIntoView()", seen)
        for step in range(STEPS):
            page.locator(slider).evaluate(MOVE, first + (last - first) * step / (STEPS - 1))
            page.wait_for_timeout(SETTLE_MS if step == 0 else FRAME_MS)
            frames.append(Image.open(io.BytesIO(page.screenshot())))
            lengths.append(LAST_MS if step in (0, STEPS - 1) else FRAME_MS)
        page.close()
    context.close()
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=lengths, loop=0, quality=70)
    return path


if __name__ == "__main__":
    main()
