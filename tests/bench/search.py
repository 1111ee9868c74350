"""What a search costs: its curves against measuring every point alone, and its knapsack on a 70B graph."""

from __future__ import annotations

import time

from tests.bench.figure import Figure

TOKENS, WINDOW = 512, 256


def run() -> list[Figure]:
    """Curves of all groups of the demo model at four widths, and a plan of 80 layers."""
    return [_curves(), _knapsack()]


def _curves() -> Figure:
    from core.evaluate.perplexity import perplexity
    from core.graph.discover import discover
    from core.models import load as models
    from core.models import texts
    from core.models.windows import consecutive_windows
    from core.plan.curves import widths_of
    from core.search.losses import Losses

    loaded = models.load("demo", device="cpu")
    graph = discover(loaded.model, name="demo")
    windows = consecutive_windows(
        loaded.tokenizer, texts.evaluation_text("bundled"), window=WINDOW, tokens=TOKENS
    )
    perplexity(loaded.model, windows)
    whole = []
    for _ in range(3):
        began = time.perf_counter()
        perplexity(loaded.model, windows)
        whole.append(time.perf_counter() - began)
    groups = graph.of_kind("query_head", "ffn_channel")
    points = [(group.id, count) for group in groups for count in widths_of(group.units)]
    began = time.perf_counter()
    losses = Losses(loaded.model, graph, windows, None)
    with losses.around({}):
        for group, count in points:
            losses.without(group, tuple(range(count)))
    seconds, again = time.perf_counter() - began, sorted(whole)[1] * len(points)
    parts = f"{seconds:.1f} s / {again:.1f} s for {len(points)} points of {TOKENS} tokens"
    return Figure("curves of a search / whole model per point", seconds / again, "at most", 0.7, "x", parts)


def _knapsack() -> Figure:
    from core.plan.allocation import allocate
    from core.plan.curves import Curve, widths_of
    from tests.plan.made import model_graph, random_scores

    graph = model_graph(layers=80, heads=64, kv_heads=8, dim=128, hidden=8192, ffn=28672)
    groups, scores = graph.of_kind("query_head", "ffn_channel"), random_scores(graph)
    curves = {g.id: Curve((0, *widths_of(g.units)), (0.0, 0.1, 0.3, 0.7, 1.5)) for g in groups}
    began = time.perf_counter()
    allocate(graph, scores, sparsity=0.3, scope="searched", curves=curves)
    seconds = time.perf_counter() - began
    return Figure("knapsack of a search, 70B graph", seconds, "at most", 2.0, "s", "80 layers, 160 groups")
