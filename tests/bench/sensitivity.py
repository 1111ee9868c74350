"""What a sensitivity scan costs against evaluating the whole model again for every point."""

from __future__ import annotations

import time

from tests.bench.figure import Figure

TOKENS, WINDOW = 512, 256


def run() -> list[Figure]:
    """All layers of the demo model, attention and FFN, against evaluating the whole model per point."""
    import numpy as np

    from core.evaluate.perplexity import perplexity
    from core.evaluate.sensitivity import scan
    from core.graph.discover import discover
    from core.models import load as models
    from core.models import texts
    from core.models.windows import consecutive_windows

    loaded = models.load("demo", device="cpu")
    graph = discover(loaded.model, name="demo")
    windows = consecutive_windows(
        loaded.tokenizer, texts.evaluation_text("bundled"), window=WINDOW, tokens=TOKENS
    )
    scores = {group.id: np.arange(group.units, dtype=np.float32) for group in graph.groups}
    perplexity(loaded.model, windows)
    whole = []
    for _ in range(3):
        began = time.perf_counter()
        perplexity(loaded.model, windows)
        whole.append(time.perf_counter() - began)
    began = time.perf_counter()
    scanned = scan(loaded.model, graph, scores, windows, ratios=(0.5,), criterion="l2", text="bundled")
    seconds = time.perf_counter() - began
    again = sorted(whole)[1] * len(scanned.points)
    parts = f"{seconds:.1f} s / {again:.1f} s for {len(scanned.points)} points of {TOKENS} tokens"
    return [Figure("sensitivity scan / whole model per point", seconds / again, "at most", 0.7, "x", parts)]
