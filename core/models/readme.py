"""The README of a saved model: what it is, how it was pruned, how well it does, how to load it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.graph.records import Graph
from core.models.card_head import head
from core.plan.records import PruningPlan
from core.results.noise import error_of
from core.results.perplexity import by_text
from core.results.quantities import OF_TEXTS, QUANTITIES, Quantity, perplexity_titles
from core.results.render import renderer
from core.results.words import with_error

_render = renderer(Path(__file__).parent / "templates", autoescape=False)


def card(
    graph: Graph, plan: PruningPlan, facts: Mapping[str, Any], *, stock: bool, portable: bool = False
) -> str:
    """The card as Markdown, which is not escaped: whoever shows it does that.

    Args:
        facts: values under the names of `metrics.json`, `license`, `brings_code`, `door` and `reconstruct`;
            None and absent ones are left out.
        stock: whether plain `from_pretrained` reads the folder; portable: whether the code there does.
    """
    values = defaultdict(lambda: None, _counted(plan) | {k: v for k, v in facts.items() if v is not None})
    errors = {name: error_of(values, name) for name in ("ppl_after", "latency_ms_after")}
    text = _render(
        "readme.md", name=plan.model or graph.model, family=graph.family, plan=plan, facts=values,
        head=head(plan.model or graph.model, values),
        license=values["license"], rows=_rows(values), errors=errors, stock=stock, portable=portable,
        door=values["door"] or "AutoModelForCausalLM",
        texts=by_text(values),
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
    """Title, before and after of every quantity that was measured on both sides; a perplexity per text."""
    texts = by_text(values)
    rows = [
        _row(QUANTITIES["ppl"], title, of) for title, of in zip(perplexity_titles(texts), texts, strict=True)
    ]
    titles = perplexity_titles(texts, "kl")
    rows += [
        _row(QUANTITIES["kl"], title, {"kl_before": 0.0, **of})
        for title, of in zip(titles, texts, strict=True)
    ]
    others = [quantity for quantity in QUANTITIES.values() if quantity.name not in OF_TEXTS]
    rows += [_row(quantity, quantity.full_title, values) for quantity in others]
    return [row for row in rows if row]


def _row(quantity: Quantity, title: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    keys = [f"{quantity.name}_{side}" for side in ("before", "after")]
    if any(values.get(key) is None for key in keys):
        return ()
    return (title, *(with_error(values[key], error_of(values, key), quantity.form) for key in keys))
