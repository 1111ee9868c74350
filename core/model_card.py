"""The README of a saved model, as hubs show it: what it is, from what, how made, how good, how to load."""

from __future__ import annotations

from typing import Any

from core.graph.records import Graph
from core.plan import PruningPlan

LOADING = """```python
from core.export import from_pretrained

model = from_pretrained("path/to/this/folder")
```

Layers may differ in width, so the plan in `plan.json` is replayed on an empty model before the weights are read."""


def card_text(graph: Graph, plan: PruningPlan, facts: dict[str, Any]) -> str:
    """Markdown with a YAML head.

    Args:
        facts: what is known of it; `license`, `ppl_before`, `ppl_after`, `ppl_text`, `ppl_window` and
            `calibration_text` are written where they are there.
    """
    base = plan.model or graph.model
    head = ["---", "tags: [pruned, structured-pruning]", f"base_model: {base}"]
    if facts.get("license"):
        head.append(f"license: {facts['license']}")
    parts = ["\n".join([*head, "---"]), f"# {base}, pruned", _how(plan, facts)]
    if facts.get("ppl_after") is not None:
        parts.append(_quality(facts))
    return "\n\n".join([*parts, "## Loading", LOADING]) + "\n"


def _how(plan: PruningPlan, facts: dict[str, Any]) -> str:
    lines = [
        f"- method: `{plan.method}`, {plan.scope} allocation, units: {', '.join(plan.kinds)}",
        f"- removed: {plan.sparsity:.1%} of block parameters, {plan.sparsity_total:.1%} of all",
    ]
    if plan.before and plan.after:
        lines.append(f"- parameters: {plan.before.params:,} before, {plan.after.params:,} after")
    if facts.get("calibration_text"):
        lines.append(f"- calibrated on: {facts['calibration_text']}")
    return "\n".join(lines)


def _quality(facts: dict[str, Any]) -> str:
    before, after = facts.get("ppl_before"), facts["ppl_after"]
    dense = f" (dense: {before:.2f})" if before is not None else ""
    return (
        f"Perplexity {after:.2f}{dense} on {facts.get('ppl_text', 'an unnamed text')} "
        f"in windows of {facts.get('ppl_window', '?')} tokens."
    )
