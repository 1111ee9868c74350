"""What refitting the whole model costs beside a forward over the same text, the solves apart."""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import patch

from tests.bench.figure import Figure

SAMPLES, LENGTH = 16, 128


def run() -> list[Figure]:
    """Least squares at 20 % on the demo model; the solves are timed as they happen and taken off."""
    import numpy as np
    import torch

    from core.graph.discover import discover
    from core.models import load as models
    from core.models import texts
    from core.models.windows import sample_windows
    from core.plan.allocation import allocate
    from core.recover.least_squares import fit
    from core.recover.reconstruct import reconstruct

    loaded = models.load("demo", device="cpu")
    graph, text = discover(loaded.model, name="demo"), texts.calibration_text("bundled")
    windows = sample_windows(loaded.tokenizer, text, samples=SAMPLES, length=LENGTH, seed=0)
    rng = np.random.default_rng(0)
    scores = {group.id: rng.random(group.units) for group in graph.groups}
    plan = allocate(graph, scores, sparsity=0.2, biased=True)
    forwards = [_seconds(lambda: _forward(loaded.model, windows)) for _ in range(3)]
    solving = [0.0]

    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        solved = fit(*args, **kwargs)
        solving[0] += time.process_time() - began
        return solved

    with torch.no_grad(), patch("core.recover.walk.fit", timed):
        whole = _seconds(lambda: reconstruct(loaded.model, graph, plan, windows, how="least_squares"))
    forward, rest = sorted(forwards)[1], whole - solving[0]
    parts = f"{rest:.1f} s / {forward:.1f} s, and {solving[0]:.1f} s of solves"
    return [Figure("refitting the model, without solves / forward", rest / forward, "at most", 3, "x", parts)]


def _forward(model: Any, windows: Any) -> None:
    import torch

    with torch.no_grad():
        for batch in windows.split(4):
            model(input_ids=batch, use_cache=False)


def _seconds(work: Any) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
