"""Ten people on the example at once, for half an hour: how long an update takes, and what memory it costs.

`make bench ARGS="visitors minutes=30"`. Each of them is a session that sends what a page sends and reads all
it is answered (see `browsers.py`, which says why these are not ten browsers): it goes from tab to tab, and on
some of them chooses a run, a criterion or models, with a pause after each. Beside them an event that does
nothing on the server is timed. The dashboard's memory is read every few seconds. Before that they hurry,
until twice as many pages have come as are ever kept: until then memory grows, and says nothing.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from math import inf
from pathlib import Path

import httpx
import psutil

from pruneviz.context import TABS
from pruneviz.serve import MOST_SESSIONS
from tests.bench.browsers import GIVEN_UP, NOTHING, PAUSE, Site, Times, _asks_nothing, _p95
from tests.bench.figure import Figure
from tests.browser.driver import Dashboard

PEOPLE, MINUTES = 10, 30.0
#: Seconds of an update in 95 of 100 cases, and MiB by which the dashboard may have grown.
GOAL, GROWTH = 0.5, 20.0
SAMPLE_S = 5.0
#: How much faster they go before anything is measured.
HURRY = 8.0
ANALYSIS, PRUNED = "example-analysis", "example-taylor_first-20"
#: Tab -> what is chosen there once it is open: the box that changes, and what the page then holds.
CHOICES = {
    "scores": ("url-criterion", [{"url-criterion": name} for name in ("taylor_first", "wanda", "ifv")]),
    "runs": ("runs-asked", [{"url-run": PRUNED}, {"url-run": ANALYSIS}]),
    "compare": ("compare-asked", [{"url-models": f"dense,{PRUNED}"}, {"url-models": f"{PRUNED},dense"}]),
}


def run(minutes: str = str(MINUTES)) -> list[Figure]:
    """All of them at once for so many minutes, on a dashboard that has nothing but the examples."""
    with tempfile.TemporaryDirectory() as name:
        board = Dashboard(Path(name) / "runs")
        board.start()
        try:
            seconds, mib = asyncio.run(_all(board, 60 * float(minutes)))
        finally:
            board.stop()
    least = _p95(seconds.pop(NOTHING))
    each = ", ".join(f"{tab} {_p95(times):.2f}" for tab, times in seconds.items())
    every = [second for times in seconds.values() for second in times]
    parts = f"{len(every)} updates in {minutes} minutes: {each} s; {NOTHING}: p95 {least:.2f} s"
    few = max(1, len(mib) // 10)
    early, late = statistics.median(mib[:few]), statistics.median(mib[-few:])
    grown = f"{early:.0f} at first, {late:.0f} MiB in the end, {max(mib):.0f} at most"
    return [
        Figure(f"{PEOPLE} people on the example, p95 of an update", _p95(every), "at most", GOAL, "s", parts),
        Figure("dashboard: memory that they add", late - early, "at most", GROWTH, "MiB", grown),
    ]


async def _all(board: Dashboard, seconds: float) -> tuple[Times, list[float]]:
    """Tab -> how long its updates took, and the dashboard's MiB as time went by."""
    assert board.process is not None
    took: Times = {**{tab: [] for tab in TABS}, NOTHING: []}
    mib: list[float] = []
    process = psutil.Process(board.process.pid)

    async def weigh(end: float) -> None:
        while time.monotonic() < end:
            mib.append(process.memory_info().rss / 2**20)
            await asyncio.sleep(SAMPLE_S)

    async with httpx.AsyncClient(base_url=board.url, timeout=GIVEN_UP, limits=httpx.Limits()) as client:
        site = Site(client, (await client.get("config")).json(), took, time.monotonic())
        turns = -(-2 * MOST_SESSIONS // PEOPLE)
        await asyncio.gather(*(_visits(site, f"early{n}", inf, turns, HURRY) for n in range(PEOPLE)))
        for times in took.values():
            times.clear()
        end = time.monotonic() + seconds
        people = (_visits(site, f"visitor{n}", end) for n in range(PEOPLE))
        await asyncio.gather(weigh(end), _asks_nothing(site, end), *people)
    return took, mib


async def _visits(site: Site, name: str, end: float, turns: float = inf, hurry: float = 1.0) -> None:
    """One person's way through the tabs, again and again, each time as a new visitor would.

    Args:
        turns: how often at most; hurry: by how much shorter the pauses are.
    """
    draw, turn = random.Random(name), 0
    while time.monotonic() < end and turn < turns:
        turn += 1
        session, page = f"{name}-{turn}", {**site.values, "url-model": "demo"}
        for tab in draw.sample(list(TABS), len(TABS)):
            page["url-tab"] = tab
            await _waited(draw, hurry)
            await site.change(session, tab, f"tab-{tab}", "select", page)
            box, choices = CHOICES.get(tab, ("", []))
            for choice in choices:
                page |= choice
                await _waited(draw, hurry)
                await site.change(session, tab, box, "change", page)
            if time.monotonic() > end:
                return


async def _waited(draw: random.Random, hurry: float) -> None:
    await asyncio.sleep(PAUSE / hurry * (0.5 + draw.random()))
