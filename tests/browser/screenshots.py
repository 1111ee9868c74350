"""`make screenshots`: every tab in both themes, on the demo model, into assets/screenshots/.

Uses the newest finished runs of a runs folder; what is missing there is run first, which takes minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.runs import launch
from core.runs.artifacts import read_spec
from core.runs.status import ENDED
from core.runs.watch import list_runs, refresh
from core.spec.run import RunSpec
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


def main() -> None:
    """Make the runs if need be, then all pictures."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs-dir", type=Path, default=ROOT / "runs")
    arguments.add_argument("--out", type=Path, default=ROOT / "assets" / "screenshots")
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    pruned = [prepare(given.runs_dir, RunSpec(goal=goal)) for goal in ("explore", "sweep", "prune")][-1]
    dashboard = Dashboard(given.runs_dir)
    dashboard.start()
    try:
        with chromium() as browser:
            for path in pictures(browser, dashboard.url, given.out, pruned.name):
                print(path, flush=True)
    finally:
        dashboard.stop()


def prepare(runs_dir: Path, spec: RunSpec) -> Path:
    """The newest finished run with this goal, or a new one. Raises RuntimeError if that fails."""
    for run in list_runs(runs_dir) if runs_dir.is_dir() else []:
        made = read_spec(run) if refresh(run).state == "finished" else None
        if made and (made.goal, made.prune) == (spec.goal, spec.prune):
            return run
    run = launch.start(runs_dir, spec)
    while (status := refresh(run)).state not in ENDED:
        time.sleep(2)
    if status.state != "finished":
        raise RuntimeError(f"{run} ended as {status.state}: {status.error}")
    return run


def pictures(browser: Any, url: str, out: Path, run: str) -> Iterator[Path]:
    """Take them one by one."""
    for theme in ("light", "dark"):
        context = browser.new_context(viewport=SIZE, color_scheme=theme)
        context.add_init_script(NO_TOUR)
        for tab, (query, wanted) in TABS.items():
            page = context.new_page()
            page.goto(f"{url}?{query}&run={run}")
            page.locator(wanted).first.wait_for(state="visible", timeout=60_000)
            page.wait_for_timeout(SETTLE_MS)
            path = out / f"{tab}-{theme}.png"
            page.screenshot(path=path, full_page=True)
            page.close()
            yield path
        context.close()


if __name__ == "__main__":
    main()
