"""The page on artifacts of a 70B model: seconds until a tab can be used, a redraw of tau, the memory.

The groups are found from a config, as anybody would; the numbers are drawn at random: 80 layers, 64 heads,
28,672 channels, four criteria.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from core.graph.discover import discover_config
from core.graph.records import Graph
from core.plan.records import PruningPlan
from core.results.masks import MaskState, write_masks
from core.results.scores import write_scores
from core.results.sensitivity import Sensitivity, write_sensitivity
from core.results.similarity import Similarity, write_similarity
from core.results.sweep import Point, Sweep, write_sweep
from core.results.widths import WIDTHS, widths
from core.runs.artifacts import GROUPS, PLAN
from core.spec.explore import ExploreSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from tests.bench.figure import Figure
from tests.bench.graph import LLAMA, SIZES
from tests.browser.driver import Dashboard, chromium
from tests.pruneviz.samples import MEASURED, make_run

CRITERIA = ("taylor_first", "wanda", "ifv", "l2")
PEOPLE = 10
#: Tab -> what of it is drawn last.
DRAWN = {
    "model": "#model-parts .pv-bars",
    "structure": "#structure-map .pv-cell",
    "heads": "#heads-explorer .pv-node",
    "scores": "#scores-heat .main-svg",
    "sensitivity": "#sensitivity-chart .main-svg",
    "sweep": "#sweep-chart .main-svg",
    "runs": "#run-detail .pv-facts",
    "widths": "#widths-chart .main-svg",
    "compare": "#compare-table table",
}
#: Milliseconds of each of 21 redraws, from moving the slider to the next frame.
REDRAWS = """async () => {
  const range = document.getElementById("heads-tau"), times = [];
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  for (let step = 0; step <= 20; step++) {
    await frame();
    range.value = step / 20;
    const began = performance.now();
    range.dispatchEvent(new Event("input", {bubbles: true}));
    await frame();
    times.push(performance.now() - began);
  }
  return times;
}"""


def run() -> list[Figure]:
    """Every tab opened in a page of its own, tau moved, then ten people through all tabs."""
    with tempfile.TemporaryDirectory() as name, opened(Path(name)) as board, chromium() as browser:
        seconds = {tab: _usable(browser, board, tab) for tab in DRAWN}
        redraws = _redraws(browser, board)
        before = _mib(board)
        for _ in range(PEOPLE):
            _tour(browser, board)
        after = _mib(board)
    slowest = max(seconds, key=lambda tab: seconds[tab])
    each = ", ".join(f"{tab} {value:.1f}" for tab, value in seconds.items())
    middle = f"median {statistics.median(redraws):.0f} ms of {len(redraws)} between 0 and 1"
    return [
        Figure(f"70B: slowest tab ({slowest})", seconds[slowest], "at most", 3.0, "s", each),
        Figure("70B: a redraw of tau, the slowest", max(redraws), "at most", 50, "ms", middle),
        Figure(
            f"70B: dashboard after a tour by {PEOPLE}", after, "at most", 600, "MiB", f"{before:.0f} by one"
        ),
    ]


@contextmanager
def opened(folder: Path) -> Iterator[Dashboard]:
    """A dashboard over runs of a 70B model."""
    sizes, *_ = SIZES["70B"]
    model = folder / "model"
    model.mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **LLAMA, **sizes}
    (model / "config.json").write_text(json.dumps(config))
    write_runs(folder / "runs", str(model), graph_70b())
    board = Dashboard(folder / "runs", str(model))
    board.start()
    try:
        yield board
    finally:
        board.stop()


def graph_70b() -> Graph:
    """The groups of Llama-2-70B, from its config."""
    from transformers import LlamaConfig

    sizes, *_ = SIZES["70B"]
    return discover_config(LlamaConfig(**LLAMA, **sizes), name="bench")


def write_runs(runs_dir: Path, model: str, graph: Graph) -> None:
    """An analysis, a sweep and a trained pruning run of `graph`, with numbers drawn at random."""
    source, draw = ModelSpec(model), np.random.default_rng(0)
    explore = ExploreSpec(criteria=CRITERIA)
    folder = make_run(runs_dir, "a-explore", RunSpec(goal="explore", model=source, explore=explore))
    (folder / GROUPS).write_text(graph.to_json())
    _analysis(folder, graph, draw)
    folder = make_run(runs_dir, "b-sweep", RunSpec(goal="sweep", model=source, sweep=SweepSpec(CRITERIA)))
    write_sweep(folder, _sweep(draw))
    asked = RunSpec(model=source, prune=PruneSpec("nuteprune", 0.2))
    _pruned(make_run(runs_dir, "c-prune", asked, metrics=MEASURED), graph, draw)


def _analysis(folder: Path, graph: Graph, draw: np.random.Generator) -> None:
    layers, heads = len(graph.layer_modules), graph.attentions[0].heads
    points = draw.random((layers, heads, 4), dtype=np.float32)
    apart = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1) / 2.5
    write_similarity(folder, Similarity(apart.astype(np.float32), list(range(layers)), 2048, "bench"))
    ranked = [group for group in graph.groups if group.prunable and group.kind != "residual_channel"]
    scores = {
        name: {group.id: draw.lognormal(size=group.units).astype(np.float32) for group in ranked}
        for name in CRITERIA
    }
    write_scores(folder, scores)
    scan = [
        {"layer": layer, "kind": kind, "ratio": 0.5, "ppl": 5 + draw.random(), "ppl_stderr": 0.1}
        for layer in range(layers) for kind in ("attention", "ffn")
    ]  # fmt: skip
    write_sensitivity(folder, Sensitivity(5.0, "bench", 256, 1024, "wanda", scan))


def _sweep(draw: np.random.Generator) -> Sweep:
    points = [
        Point(
            name, share, "local", "none", 0, 16, share, share * 0.9, int(7e10 * (1 - share)), 7 * 10**10,
            5 + 30 * share * draw.random(), 1.0,
        )
        for name in CRITERIA for share in (0.1, 0.2, 0.3, 0.4, 0.5)
    ]  # fmt: skip
    return Sweep(5.0, 7 * 10**10, 7 * 10**10, "bench", 256, 4096, "bench", len(points), tuple(points))


def _pruned(folder: Path, graph: Graph, draw: np.random.Generator) -> None:
    channels = [group for group in graph.of_kind("ffn_channel") if group.prunable]
    gone = {
        group.id: tuple(sorted(draw.choice(group.units, group.units // 5, replace=False).tolist()))
        for group in channels
    }
    plan = PruningPlan(gone, method="nuteprune")
    (folder / PLAN).write_text(plan.to_json())
    (folder / WIDTHS).write_text(json.dumps(widths(graph, plan)))
    factors = draw.random((len(channels), channels[0].units), dtype=np.float32)
    write_masks(folder, MaskState(100, 100, {"ffn_channel": factors}, {"ffn_channel": factors > 0.2}))


def _usable(browser: Any, board: Dashboard, tab: str) -> float:
    """Seconds from choosing the tab, on a page that is open, to its drawing."""
    page = browser.new_page(viewport={"width": 1400, "height": 950})
    page.goto(f"{board.url}?tab={'runs' if tab == 'model' else 'model'}")
    page.locator("#run-detail .pv-facts, #model-parts .pv-bars").locator("visible=true").first.wait_for()
    began = time.perf_counter()
    page.locator(f"#tab-{tab}-button").click()
    page.locator(DRAWN[tab]).first.wait_for(state="visible", timeout=120_000)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    seconds = time.perf_counter() - began
    page.close()
    return seconds


def _redraws(browser: Any, board: Dashboard) -> list[float]:
    page = browser.new_page(viewport={"width": 1400, "height": 950})
    page.goto(f"{board.url}?tab=heads")
    page.locator(DRAWN["heads"]).first.wait_for(state="visible", timeout=120_000)
    times: list[float] = page.evaluate(REDRAWS)
    page.close()
    return times


def _tour(browser: Any, board: Dashboard) -> None:
    page = browser.new_context().new_page()
    page.goto(board.url)
    for tab, drawn in DRAWN.items():
        page.locator(f"#tab-{tab}-button").click()
        page.locator(drawn).first.wait_for(state="visible", timeout=120_000)
    page.context.close()


def _mib(board: Dashboard) -> float:
    assert board.process is not None
    return float(psutil.Process(board.process.pid).memory_info().rss) / 2**20
