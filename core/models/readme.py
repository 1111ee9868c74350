"""The README of a saved model: what it is, how it was pruned, how well it does, how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.graph.records import Graph
from core.plan.records import KV_BITS, PruningPlan
from core.results.noise import error_of

_NO_LICENSE = "The base model's license applies; it was not recorded here."
_ROWS = (
    ("parameters", "params", "{:,}"),
    ("multiply-accumulates per token", "macs", "{:,}"),
    (f"key-value cache, bytes per token at {KV_BITS} bits", "kv_bytes_per_token", "{:,}"),
    ("perplexity", "ppl", "{:.2f}"),
    ("latency, ms", "latency_ms", "{:.1f}"),
    ("tokens per second", "tokens_per_second", "{:.1f}"),
    ("memory, GiB", "memory_gib", "{:.2f}"),
)


def card(graph: Graph, plan: PruningPlan, facts: Mapping[str, Any], *, stock: bool) -> str:
    """The card as Markdown.

    Args:
        facts: values under the names of `metrics.json`, and `license`; None and absent ones are left out.
        stock: whether plain `from_pretrained` reads the folder.
    """
    name = plan.model or graph.model
    front = ["library_name: transformers", "tags: [pruned]"]
    front += [f"license: {facts['license']}"] if facts.get("license") else []
    sections = [
        "---\n" + "\n".join(front) + "\n---",
        f"# {name}, pruned by {plan.sparsity_total:.1%}",
        f"A smaller version of `{name}` (`{graph.family}`). Parts were removed; nothing was added.",
        _how(plan, facts),
        _numbers(plan, facts),
        "## Loading\n\n" + _loading(stock),
        "`plan.json` lists what was removed, `groups.json` what belongs together. "
        + (f"The base model's license is {facts['license']}." if facts.get("license") else _NO_LICENSE),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _how(plan: PruningPlan, facts: Mapping[str, Any]) -> str:
    where = f"layers {plan.layers}" if plan.layers else "all layers"
    lines = [
        "## How it was pruned",
        f"- method `{plan.method or 'by hand'}`, scope {plan.scope}, {where}",
        f"- units: {', '.join(plan.kinds) or 'chosen one by one'}",
        f"- {plan.sparsity:.1%} of the parameters in scope, {plan.sparsity_total:.1%} of all parameters",
    ]
    if facts.get("calibration_text"):
        lines.append(f"- calibrated on {facts['calibration_text']}")
    lines += [f"- {note}" for note in plan.notes]
    if facts.get("recover_method"):
        lines.append(_training(facts))
    return lines[0] + "\n\n" + "\n".join(lines[1:])


def _training(facts: Mapping[str, Any]) -> str:
    steps, best = facts["recover_steps"], facts["recover_best_step"]
    change = f"perplexity {facts['ppl_pruned']:.2f} -> {facts['ppl_recovered']:.2f}"
    return f"- Recovered with LoRA on {facts['recover_data']}, best after {best} of {steps} steps: {change}"


def _numbers(plan: PruningPlan, facts: Mapping[str, Any]) -> str:
    facts = dict(facts)
    if plan.before and plan.after:
        for key, when in (("before", plan.before), ("after", plan.after)):
            facts.setdefault(f"params_{key}", when.params)
            facts.setdefault(f"macs_{key}", when.macs_per_token)
            facts.setdefault(f"kv_bytes_per_token_{key}", when.kv_bytes_per_token)
    rows = [
        f"| {title} | {_cell(facts, key, 'before', form)} | {_cell(facts, key, 'after', form)} |"
        for title, key, form in _ROWS
        if facts.get(key + "_before") is not None and facts.get(key + "_after") is not None
    ]
    if not rows:
        return ""
    table = "\n".join(["## Numbers", "", "| | dense | pruned |", "|---|---|---|", *rows])
    if facts.get("ppl_after") is None:
        return table
    caption = f"Perplexity on {facts.get('ppl_text')}, windows of {facts.get('ppl_window')} tokens"
    caption += ", ± one standard error" if error_of(facts, "ppl_after") is not None else ""
    if error_of(facts, "latency_ms_after") is not None:
        caption += "; times ± half of slowest minus fastest"
    return f"{table}\n\n{caption}."


def _cell(facts: Mapping[str, Any], key: str, side: str, form: str) -> str:
    error = error_of(facts, f"{key}_{side}")
    return form.format(facts[f"{key}_{side}"]) + (f" ± {form.format(error)}" if error is not None else "")


def _loading(stock: bool) -> str:
    auto = "AutoModelForCausalLM"
    plain = f"from transformers import {auto}\n\nmodel = {auto}.from_pretrained(FOLDER)"
    ours = "from core.export import from_pretrained\n\nmodel = from_pretrained(FOLDER)"
    if stock:
        return f"All layers are alike, so `transformers` reads it as it is:\n\n```python\n{plain}\n```"
    return (
        "Layers differ in width, which `transformers` has no format for. The pruning workbench replays "
        f"the plan on an empty model and loads the weights into it:\n\n```python\n{ours}\n```"
    )
