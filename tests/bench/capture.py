"""What statistics cost beside the bare passes they are taken from, and head distances beside Eq. 1."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from tests.bench.figure import Figure

WINDOWS, LENGTH, REPEATS = 8, 128, 3


def run() -> list[Figure]:
    """Times in this process, memory in one process per figure."""
    return [*_times(), *_memory(), *_distances()]


def _loaded():  # type: ignore[no-untyped-def]
    from core.graph.discover import discover
    from core.models import load as models
    from core.models import texts
    from core.models.windows import sample_windows

    loaded = models.load("demo", device="cpu")
    graph = discover(loaded.model, name="demo")
    text = texts.calibration_text("bundled")
    windows = sample_windows(loaded.tokenizer, text, samples=WINDOWS, length=LENGTH, seed=0)
    return loaded.model, graph, windows


def _times() -> list[Figure]:
    """Turn and turn about, so that a busy machine disturbs both alike; the median of the ratios."""
    import torch

    from core.capture.names import GRADIENTS
    from core.capture.statistics import STATISTICS, capture

    model, graph, windows = _loaded()

    def forward() -> None:
        with torch.no_grad():
            for batch in windows.split(4):
                model(input_ids=batch, use_cache=False)

    def backward(batch: int) -> None:
        for sample in windows[: WINDOWS // 2].split(batch):
            _backward(model, sample)

    ahead, half = set(STATISTICS) - GRADIENTS, windows[: WINDOWS // 2]
    cases: list[tuple[str, float, Callable[[], object], Callable[[], object]]] = [
        (
            "all forward-only statistics / bare forward",
            1.25,
            lambda: capture(model, graph, windows, needs=ahead),
            forward,
        ),
        (
            "Eq. 5 in one backward / bare forward + backward as one batch",
            1.15,
            lambda: capture(model, graph, half, needs={"gradient_first"}),
            lambda: backward(len(half)),
        ),
        (
            "all statistics / bare forward + backward per sample",
            1.25,
            lambda: capture(model, graph, half, needs=set(STATISTICS)),
            lambda: backward(1),
        ),
    ]
    figures = []
    for name, goal, ours, bare in cases:
        bare()
        pairs = [(_seconds(ours), _seconds(bare)) for _ in range(REPEATS)]
        ratio = statistics.median(a / b for a, b in pairs)
        a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
        parts = f"{a:.2f} s / {b:.2f} s, windows of {LENGTH} tokens, median of {REPEATS}"
        figures.append(Figure(name, ratio, "at most", goal, "x", parts))
    return figures


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _backward(model, ids) -> None:  # type: ignore[no-untyped-def]
    """One backward that frees each gradient as soon as it is there, over the parameters of the blocks."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".layers." in name and parameter.dim() > 1)
    hooks = [
        parameter.register_post_accumulate_grad_hook(_free)
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    for hook in hooks:
        hook.remove()


def _free(parameter) -> None:  # type: ignore[no-untyped-def]
    parameter.grad = None


def _memory() -> list[Figure]:
    peak = {way: _peak(way) for way in ("ours", "freeing", "keeping", "ours at once", "freeing at once")}
    figures = []
    for how, words in (("", ""), (" at once", ", all samples at once")):
        ours, freeing = peak[f"ours{how}"], peak[f"freeing{how}"]
        name = f"peak memory of a gradient capture / of a backward that frees gradients{words}"
        parts = f"{ours:.2f} GiB / {freeing:.2f} GiB; keeping all: {peak['keeping']:.2f} GiB"
        figures.append(Figure(name, ours / freeing, "at most", 1.3, "x", parts))
    return figures


def _peak(way: str) -> float:
    code = f"from tests.bench.capture import measure; measure({way!r})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return float(json.loads(out.splitlines()[-1]))


def measure(way: str) -> None:
    """Print the peak memory in GiB of this process after three samples."""
    from core.capture.names import GRADIENTS, OVER_DATA
    from core.capture.statistics import capture
    from tests.bench.graph import _peak_gib

    model, graph, windows = _loaded()
    samples = windows[:3]
    if way.startswith("ours"):
        needs = {"gradient_first"} if way == "ours at once" else GRADIENTS - set(OVER_DATA)
        capture(model, graph, samples, needs=needs)
    for batch in samples.split(len(samples) if way == "freeing at once" else 1) if way[0] != "o" else ():
        if way.startswith("freeing"):
            _backward(model, batch)
        else:
            model(input_ids=batch, labels=batch, use_cache=False).loss.backward()
    print(json.dumps(_peak_gib()))


def _distances() -> list[Figure]:
    """All pairs at once, against Eq. 1 for every i and j, its two divergences over all positions."""
    import torch

    from core.capture.divergence import js_distances

    figures = []
    for heads in (9, 32):
        torch.manual_seed(0)
        future = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        attention = (torch.randn(4, heads, LENGTH, LENGTH) * 3).masked_fill(future, -torch.inf).softmax(-1)
        counted = torch.ones(4, LENGTH, dtype=torch.bool)
        fast, slow = js_distances(attention, counted), _pair_by_pair(attention)
        assert (fast - slow).abs().max() / counted.sum() < 1e-5
        pairs = [
            (_seconds(lambda: _pair_by_pair(attention)), _seconds(lambda: js_distances(attention, counted)))  # noqa: B023
            for _ in range(REPEATS)
        ]
        ratio = statistics.median(a / b for a, b in pairs)
        a, b = (1000 * statistics.median(side) for side in zip(*pairs, strict=True))
        parts = f"{a:.0f} ms / {b:.1f} ms, 4 x {LENGTH} positions; vectorised over positions on both sides"
        figures.append(
            Figure(
                f"head distances, {heads} heads, pair by pair / at once", ratio, "at least", 20, "x", parts
            )
        )
    return figures


def _pair_by_pair(attention):  # type: ignore[no-untyped-def]
    import torch

    def divergence(p, m):  # type: ignore[no-untyped-def]
        return torch.where(p > 0, p * (p / m).log(), 0).sum(dim=-1)

    heads = attention.shape[1]
    total = torch.zeros(heads, heads)
    for i in range(heads):
        for j in range(heads):
            p, q = attention[:, i], attention[:, j]
            m = (p + q) / 2
            total[i, j] = (divergence(p, m) / 2 + divergence(q, m) / 2).clamp_min(0).sqrt().sum()
    return total
