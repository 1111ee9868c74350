"""How much faster the demo model loads from its cache than from the GGUF it came in."""

from __future__ import annotations

import time

from tests.bench.figure import Figure


def run() -> list[Figure]:
    """One GGUF load against the median of three cached ones, tokenizer included in both."""
    import statistics

    from transformers import AutoModelForCausalLM, AutoTokenizer

    from core.models import demo
    from core.models import load as models

    demo.demo_folder()
    gguf = demo.demo_gguf()
    began = time.perf_counter()
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    slow = time.perf_counter() - began
    fast = statistics.median(_seconds(lambda: models.load("demo", device="cpu")) for _ in range(3))
    parts = f"{slow:.1f} s / {fast:.2f} s"
    return [Figure("loading the demo model, GGUF / cache", slow / fast, "at least", 8, "x", parts)]


def _seconds(work) -> float:  # type: ignore[no-untyped-def]
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
