"""The README of a saved model: what it is, how it was pruned, how well it does, how to load it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.graph.records import Graph
from core.plan.records import PruningPlan
from core.results.noise import error_of
from core.results.quantities import QUANTITIES
from core.results.render import renderer
from core.results.words import with_error

_render = renderer(Path(__file__).parent / "templates", autoescape=False)


def card(graph: Graph, plan: PruningPlan, facts: Mapping[str, Any], *, stock: bool) -> str:
    """The card as Markdown, which is not escaped: whoever shows it does that.

    Args:
        facts: values under the names of `metrics.json`, `license` and `reconstruct`; None and absent
            ones are left out.
        stock: whether plain `from_pretrained` reads the folder.
    """
    values = defaultdict(lambda: None, _counted(plan) | {k: v for k, v in facts.items() if v is not None})
    errors = {name: error_of(values, name) for name in ("ppl_after", "latency_ms_after")}
    text = _render(
        "readme.md", name=plan.model or graph.model, family=graph.family, plan=plan, facts=values,
        license=values["license"], rows=_rows(values), errors=errors, stock=stock,
    )  # fmt: skip
    return f"{text}\n"


def _counted(plan: PruningPlan) -> dict[str, Any]:
    """What the plan counts, under the names of `metrics.json`."""
    return {
        f"{name}_{key}": count
        for key, cost in (("before", plan.before), ("after", plan.after))
        if cost
        for name, count in (
            ("params", cost.params), ("macs", cost.macs_per_token),
            ("kv_bytes_per_token", cost.kv_bytes_per_token),
        )
    }  # fmt: skip


def _rows(values: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Title, before and after of every quantity that was measured on both sides."""
    names = {
        quantity: [f"{name}_{side}" for side in ("before", "after")] for name, quantity in QUANTITIES.items()
    }
    return [
        (
            quantity.full_title,
            *(with_error(values[key], error_of(values, key), quantity.form) for key in keys),
        )
        for quantity, keys in names.items()
        if all(values[key] is not None for key in keys)
    ]
