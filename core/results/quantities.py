"""What is measured of a model, once: name in `metrics.json`, title, how it is written, what is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.plan.records import KV_BITS
from core.results import words
from core.results.efficiency import SPREADS

#: Which 8 bits a model was measured in, as `metrics.json` has it under `kind_int8` -> for people.
LLM_INT8, WEIGHTS_ONLY = "llm_int8", "weights_only"
INT8_KINDS = {
    LLM_INT8: "LLM.int8() of bitsandbytes, outliers kept apart",
    WEIGHTS_ONLY: "weights only, outliers of the activations not kept apart",
}


@dataclass(frozen=True)
class Quantity:
    """One number of `metrics.json`; its error is found there by `core.results.noise.error_of`.

    Attributes:
        write: for people, unit included; form, unit: for tables that are read to the last digit.
        lower: whether less is better.
    """

    name: str
    title: str
    write: words.Writer
    form: str
    unit: str = ""
    lower: bool = True

    @property
    def full_title(self) -> str:
        """With the unit, where numbers are written without: `Memory (GiB)`."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def timed(self) -> bool:
        """Whether it is timed in turns within one run, and means nothing against another run's."""
        return self.name in SPREADS


#: Name -> quantity, in the order shown.
QUANTITIES = {
    quantity.name: quantity
    for quantity in (
        Quantity("ppl", "Perplexity", words.perplexity, ",.2f"),
        Quantity("kl", "Divergence from the dense model", words.divergence, ",.3f", "nats"),
        Quantity("params", "Parameters", words.count, ",d"),
        Quantity("macs", "Multiply-adds per token", words.count, ",d"),
        Quantity(
            "kv_bytes_per_token", f"Key-value cache per token, at {KV_BITS} bits", words.size, ",d", "bytes"
        ),
        Quantity("memory_gib", "Memory", words.memory, ",.3f", "GiB"),
        Quantity("latency_ms", "Time to read a prompt", words.time_ms, ",.1f", "ms"),
        Quantity("tokens_per_second", "Speed of writing", words.speed, ",.1f", "tokens/s", lower=False),
    )
}


#: In `metrics.json` the list of what is left of every quantity that a budget was given of.
BUDGETS = "budgets"
#: What is measured of every text.
OF_TEXTS = ("ppl", "kl")


def perplexity_titles(texts: Sequence[Mapping[str, Any]], name: str = "ppl") -> list[str]:
    """What the perplexity on each text is called: by its text, where several were measured.

    Args:
        texts: rows of `core.results.perplexity.by_text`; name: of another quantity of `OF_TEXTS`.
    """
    title = QUANTITIES[name].title
    if len(texts) < 2:
        return [title] * len(texts)
    return [f"{title}, {name}" for name in words.short_texts([str(row.get("ppl_text")) for row in texts])]


def int8_words(kind: object) -> str:
    """Which 8 bits that was; runs that do not say were measured with weights only."""
    return f"In 8 bits: {INT8_KINDS.get(str(kind), INT8_KINDS[WEIGHTS_ONLY])}."
