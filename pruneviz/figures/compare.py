"""Dense and pruned side by side, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from pruneviz import words
from pruneviz.figures.run_detail import measured_on


def _milliseconds(value: float | None) -> str:
    return words.DASH if value is None else f"{value:,.0f} ms"


def _speed(value: float | None) -> str:
    return words.DASH if value is None else f"{value:,.1f} tokens/s"


def _gib(value: float | None) -> str:
    return words.DASH if value is None else f"{value:.2f} GiB"


#: Metric -> (title, how it is written, whether less is better).
QUANTITIES: dict[str, tuple[str, words.Writer, bool]] = {
    "ppl": ("Perplexity", words.perplexity, True),
    "params": ("Parameters", words.count, True),
    "macs": ("Multiply-adds per token", words.count, True),
    "kv_bytes_per_token": ("Key-value cache per token, 16-bit", words.size, True),
    "memory_gib": ("Memory", _gib, True),
    "latency_ms": ("Time to read a prompt", _milliseconds, True),
    "tokens_per_second": ("Speed of writing", _speed, False),
}


@dataclass(frozen=True)
class Pair:
    """One quantity: dense, pruned, both as written, and the change."""

    name: str
    title: str
    dense: str
    pruned: str
    change: str
    better: bool | None


@dataclass(frozen=True)
class CompareInfo:
    """All quantities of one pruning run, and what they were measured on."""

    pairs: list[Pair]
    removed: str
    measured: str


def compare_info(metrics: Mapping[str, Any]) -> CompareInfo:
    """Read `metrics.json`; what was not measured is a dash."""
    pairs = []
    for name, (title, write, less) in QUANTITIES.items():
        before, after = metrics.get(f"{name}_before"), metrics.get(f"{name}_after")
        change = words.difference(before, after)
        better = None if before is None or after is None or before == after else (after < before) == less
        pairs.append(Pair(name, title, write(before), write(after), change, better))
    removed = words.sparsity(metrics.get("sparsity"), metrics.get("sparsity_total"))
    return CompareInfo(pairs, removed, measured_on(dict(metrics)))


def compare_html(info: CompareInfo) -> str:
    """The table, with what the perplexity was measured on."""
    rows = "".join(
        f'<tr><td>{pair.title}</td><td class="num">{escape(pair.dense)}</td>'
        f'<td class="num">{escape(pair.pruned)}</td><td class="num">{_change(pair)}</td></tr>'
        for pair in info.pairs
    )
    head = "".join(f'<th class="num">{name}</th>' for name in ("Dense", "Pruned", "Change"))
    note = f"Perplexity on the {info.measured}." if info.measured else ""
    return (
        f'<div class="pv-card"><h3>Removed: {escape(info.removed)}</h3><div class="pv-scroll">'
        f'<table class="pv-table"><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="pv-quiet pv-foot">{escape(note)}</p></div>'
    )


def _change(pair: Pair) -> str:
    if pair.better is None:
        return escape(pair.change)
    kind, word = ("good", "better") if pair.better else ("warn", "worse")
    return f'<span class="pv-change {kind}">{escape(pair.change)} <small>{word}</small></span>'
