"""Twenty people on the Runs and Compare tabs while a run is going: how long an update of the page takes.

Twenty Chromium pages need more than two cores and 9 GiB for themselves, and would stand for the visitors'
own machines, not for the server. So two people, one on each tab, have a real page in a browser context of
its own: a script in it notes the time from a click to the answer on the page. The other eighteen are
sessions that send what such a page sends, over the same protocol, and read all of what it is answered: they
choose runs on the Runs tab, one of them the training at work, which they also poll as the page does, and
models on the Compare tab. Theirs is the time from asking to the whole answer. The training is a tiny
model's: hundreds of events a second, on the same cores as everything else. Beside them an event that does
nothing on the server is timed, which no update can be faster than: on a busy machine it is slow, too.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from core.runs import launch, watch
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.stages.worker import execute
from pruneviz.tabs.runs import POLL_S
from tests.bench.figure import Figure
from tests.browser.driver import Dashboard, chromium
from tests.conftest import WORDS, llama_config, random_model, word_tokenizer
from tests.pruneviz.scored import task, write_benchmarks

PEOPLE, FINISHED = 20, 24
#: Seconds before the first update that counts, seconds measured, between two choices of one person, and the
#: longest an update may take before it is given up (and counts as that long).
WARM_UP, SECONDS, PAUSE, GIVEN_UP = 15, 60, 5.0, 30.0
GOAL = 0.5
NOTHING = "an event that does nothing"
Times = dict[str, list[float]]
#: Choose one of the runs again and again; note when what belongs to it stands on the page.
CHOOSING = """({tab, runs, pause, givenUp}) => {
  const set = (id, value) => {
    const box = document.querySelector(`#${id} textarea, #${id} input`);
    Object.getOwnPropertyDescriptor(Object.getPrototypeOf(box), "value").set.call(box, value);
    box.dispatchEvent(new Event("input", {bubbles: true}));
  };
  const choose = {
    runs: (run) => document.querySelector(`#runs-table a[data-run="${run}"]`).click(),
    compare: (run) => { set("url-models", `dense,${run}`); set("url-run", run); },
  }[tab];
  const shows = {
    runs: (run) => document.querySelector("#run-detail .pv-mono")?.textContent === run,
    compare: (run) => document.querySelector("#compare-table th:nth-child(3) small")?.textContent === run,
  }[tab];
  const shown = (run) => new Promise((done) => {
    const end = (seen) => { watch.disconnect(); clearTimeout(late); done(seen); };
    const watch = new MutationObserver(() => shows(run) && end(true));
    const late = setTimeout(() => end(false), 1000 * givenUp);
    watch.observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
  });
  window.pvUpdates = [];
  (async () => {
    for (let turn = 0; ; turn++) {
      await new Promise((done) => setTimeout(done, 1000 * pause * (0.5 + Math.random())));
      const run = runs[turn % runs.length], began = performance.now(), answer = shown(run);
      choose(run);
      const seen = await answer;
      window.pvUpdates.push({at: Date.now(), seconds: seen ? (performance.now() - began) / 1000 : givenUp});
    }
  })();
}"""


def run() -> list[Figure]:
    """Half of the people on each tab."""
    with tempfile.TemporaryDirectory() as name, going(Path(name)) as (board, training), chromium() as browser:
        done = sorted(path.name for path in board.runs_dir.iterdir() if path.name.startswith("done"))
        pages = {
            tab: _opened(browser, board, tab, [training.name, *done[:3]] if tab == "runs" else done[:3])
            for tab in ("runs", "compare")
        }
        used = _cpu(board)
        with ThreadPoolExecutor(1) as beside:  # Playwright has a loop of its own in this thread
            seconds = beside.submit(asyncio.run, _sessions(board, training.name, done)).result()
        share = (_cpu(board) - used) / (WARM_UP + SECONDS)
        assert watch.refresh(training).state == "running", watch.log_tail(training)
        for tab, page in pages.items():
            updates = page.evaluate("window.pvUpdates")[1:]  # the first one is part of the warming up
            seconds[f"{tab} in Chromium"] = [update["seconds"] for update in updates]
    return [_figure(seconds, share)]


async def _sessions(board: Dashboard, training: str, done: list[str]) -> Times:
    """What the sessions took: "runs", "polls", "compare" and `NOTHING` -> seconds."""
    seconds: Times = {"runs": [], "polls": [], "compare": [], NOTHING: []}
    end = time.monotonic() + WARM_UP + SECONDS
    async with httpx.AsyncClient(base_url=board.url, timeout=GIVEN_UP, limits=httpx.Limits()) as client:
        site = Site(client, (await client.get("config")).json(), seconds, time.monotonic() + WARM_UP)
        people = [_asks_nothing(site, end)]
        for number in range(PEOPLE - 2):
            chosen = random.Random(number).sample(done, 3)
            if number % 2:
                people.append(_compares(site, number, chosen, end))
            else:
                people += _watches(site, number, [training, *chosen], end)
        await asyncio.gather(*people)
    return seconds


class Site:
    """The dashboard as a page's script sees it.

    Args:
        config: what `/config` answers: components with their values, and the events that they start.
        seconds: kind of update -> how long each took that was requested after `begins`.
    """

    def __init__(
        self, client: httpx.AsyncClient, config: dict[str, Any], seconds: Times, begins: float
    ) -> None:
        self.client, self.seconds, self.begins = client, seconds, begins
        names = {box["id"]: box["props"].get("elem_id") for box in config["components"]}
        self.values = {names[box["id"]]: box["props"].get("value") for box in config["components"]}
        self.events = [
            (
                event["id"],
                [(names.get(target[0]), target[1]) for target in event["targets"]],
                [names.get(box) for box in event["inputs"]],
                [names.get(box) for box in event["outputs"]],
            )
            for event in config["dependencies"] if event["backend_fn"]
        ]  # fmt: skip

    async def change(
        self, session: str, kind: str, box: str | None, event: str, page: dict[str, Any]
    ) -> None:
        """Start all that this event of this box starts, as the page does, and wait for the answers.

        Args:
            box: its element id; None for the timer of the Runs tab, which has none.
            page: element id -> value, as far as they matter.
        """
        started = [
            (number, inputs) for number, targets, inputs, outputs in self.events
            if (box, event) in targets and (box or "runs-table" in outputs)
        ]  # fmt: skip
        began = time.monotonic()
        for number, inputs in started:
            body = {"fn_index": number, "session_hash": session, "trigger_id": None}
            values = [page.get(name or "", "") for name in inputs]
            reply = await self.client.post("gradio_api/queue/join", json={**body, "data": values})
            reply.raise_for_status()
        await self._answered(session, len(started))
        if began > self.begins:
            self.seconds[kind].append(time.monotonic() - began)

    async def _answered(self, session: str, wanted: int) -> None:
        """Read until so many events have their whole answer."""
        where = {"session_hash": session}
        async with self.client.stream("GET", "gradio_api/queue/data", params=where) as stream:
            async for message in _messages(stream):
                if message["msg"] == "process_completed":
                    assert message["success"], message["output"]
                    wanted -= 1
                if not wanted:
                    return


async def _messages(stream: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in stream.aiter_lines():
        if line.startswith("data:"):
            yield json.loads(line.removeprefix("data:"))


def _watches(site: Site, number: int, runs: list[str], end: float) -> list[Any]:
    """Somebody on the Runs tab: chooses a run now and then, and polls the one that is chosen."""
    page = {"url-tab": "runs", "url-run": runs[0], "url-model": "demo"}

    async def chooses() -> None:
        for turn in range(10**6):
            await asyncio.sleep(PAUSE * (0.5 + random.random()))
            if time.monotonic() > end:
                return
            page["url-run"] = runs[turn % len(runs)]
            await site.change(f"choose{number}", "runs", "runs-asked", "change", page)

    async def polls() -> None:
        await asyncio.sleep(POLL_S * number / PEOPLE)
        while time.monotonic() < end:
            next_one = time.monotonic() + POLL_S
            await site.change(f"poll{number}", "polls", None, "tick", page)
            await asyncio.sleep(max(0.0, next_one - time.monotonic()))

    return [chooses(), polls()]


async def _asks_nothing(site: Site, end: float) -> None:
    """Presses Stop while nobody answers."""
    while time.monotonic() < end:
        await asyncio.sleep(PAUSE / 4)
        await site.change("nothing", NOTHING, "compare-stop", "click", {})


async def _compares(site: Site, number: int, runs: list[str], end: float) -> None:
    """Somebody on the Compare tab, who chooses other models now and then."""
    page = {"url-tab": "compare", "url-model": "demo"}
    for turn in range(10**6):
        await asyncio.sleep(PAUSE * (0.5 + random.random()))
        if time.monotonic() > end:
            return
        page["url-models"] = f"dense,{runs[turn % len(runs)]}"
        await site.change(f"compare{number}", "compare", "compare-asked", "change", page)


def _figure(seconds: Times, share: float) -> Figure:
    least = _p95(seconds.pop(NOTHING))
    every = [second for times in seconds.values() for second in times]
    each = ", ".join(f"{kind} {_p95(times):.2f} s" for kind, times in seconds.items())
    middle = statistics.median(every)
    parts = f"{len(every)} updates: {each}; median {middle:.2f} s; {NOTHING}: p95 {least:.2f} s; "
    parts += f"server {share:.0%} of a core"
    name = f"{PEOPLE} browsers on Runs and Compare while a run is going, p95 of a page update"
    return Figure(name, _p95(every), "at most", GOAL, "s", parts)


def _p95(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20, method="inclusive")[-1]


def _cpu(board: Dashboard) -> float:
    """Processor seconds of the dashboard so far."""
    assert board.process is not None
    times = psutil.Process(board.process.pid).cpu_times()
    return float(times.user + times.system)


def _opened(browser: Any, board: Dashboard, tab: str, runs: list[str]) -> Any:
    """A page of its own on this tab, whose visitor has begun to choose runs."""
    page = browser.new_context(viewport={"width": 1400, "height": 950}).new_page()
    page.goto(f"{board.url}?tab={tab}&run={runs[-1]}")
    shown = {"runs": "#run-detail .pv-mono", "compare": "#compare-table th:nth-child(3) small"}[tab]
    page.locator(shown).wait_for(timeout=120_000)
    page.evaluate(CHOOSING, {"tab": tab, "runs": runs, "pause": PAUSE, "givenUp": GIVEN_UP})
    return page


@contextmanager
def going(folder: Path) -> Iterator[tuple[Dashboard, Path]]:
    """A dashboard over finished runs, with a training at work that does not end by itself."""
    model, text, runs_dir = _tiny(folder), folder / "text.txt", folder / "runs"
    text.write_text(" ".join(random.Random(0).choices(WORDS.split(), k=4000)))
    spec = RunSpec(
        model=ModelSpec(str(model), "cpu"),
        calibration=DataSpec(str(text), samples=16, length=16),
        prune=PruneSpec("l2", 0.3),
        evaluate=EvalSpec(str(text), window=16, tokens=256, prompts=("the a of",), max_new_tokens=8),
    )
    first = launch.create(runs_dir, spec, mine=True)
    execute(first)
    _scored(first)
    for number in range(FINISHED):
        shutil.copytree(first, runs_dir / f"done-{number:02d}")
    shutil.rmtree(first)
    options = {"steps": 10**6, "batch": 2, "lora_rank": 2, "interval": 0.05}
    training = launch.start(runs_dir, replace(spec, prune=PruneSpec("nuteprune", 0.3, options=options)))
    board = Dashboard(runs_dir, str(model))
    board.start()
    try:
        while watch.refresh(training).stage != "train":
            time.sleep(0.2)
        yield board, training
    finally:
        board.stop()
        launch.kill(training)


def _tiny(folder: Path) -> Path:
    for part in (random_model(llama_config()), word_tokenizer()):
        part.save_pretrained(folder / "model")
    return folder / "model"


def _scored(run_dir: Path) -> None:
    """Three tasks of 200 questions, as `benchmarks.json` keeps them."""
    draw, names = random.Random(1), ("piqa", "boolq", "arc_easy")
    dense, pruned = ([task(name, "".join(draw.choices("10", k=200))) for name in names] for _ in range(2))
    write_benchmarks(run_dir, dense=dense, pruned=pruned)
