"""How much of what a pruned model's multiply-accumulates promise its prefill delivers."""

from __future__ import annotations

import copy
from typing import Any

from tests.bench.figure import Figure

SPARSITY, PROMPT, REPEATS = 0.5, 256, 5


def run() -> list[Figure]:
    """The demo model and half of its blocks, in turns; operations as PyTorch counts them in that call."""
    from dataclasses import replace

    from core.criteria.scoring import score
    from core.evaluate.efficiency import measure
    from core.graph.discover import discover
    from core.models import load as models
    from core.plan.allocation import allocate
    from core.surgery.operate import operate

    loaded = models.load("demo", device="cpu")
    graph = discover(loaded.model, name="demo")
    scores = score(loaded.model, graph, ["l2"], None, seed=0, kinds=("query_head", "ffn_channel"))["l2"]
    plan = allocate(graph, scores, sparsity=SPARSITY, kinds=("query_head", "ffn_channel"))
    small = replace(loaded, model=operate(copy.deepcopy(loaded.model), graph, plan.removed))
    promised = _operations(loaded.model) / _operations(small.model)
    measured = measure(
        {"dense": loaded.model, "pruned": small.model},
        prompt_tokens=PROMPT,
        new_tokens=1,
        repeats=REPEATS,
        batch_sizes=(1,),
    )
    dense, pruned = (measured[name].timings[0].prefill_tokens_per_second for name in ("dense", "pruned"))
    gained = pruned / dense
    parts = f"{gained:.2f} x faster ({dense:.0f} -> {pruned:.0f} tokens/s), {promised:.2f} x fewer MACs"
    return [
        Figure("prefill gain / MACs promise, half pruned", gained / promised, "at least", 0.85, "x", parts)
    ]


def _operations(model: Any) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from core.models.tokens import last_only

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.arange(PROMPT)[None], use_cache=True, **last_only(model))
    return int(counter.get_total_flops())
