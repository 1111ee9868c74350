"""One run: its stages, how far it is, what came out, what went wrong."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from core.results import words
from core.results.noise import Difference, perplexity_difference
from pruneviz.data import runs
from pruneviz.data.runs import RunRecord
from pruneviz.figures import states
from pruneviz.figures.runs_table import GOALS, badge

#: Status of a stage -> the sign before it.
SIGNS = {"done": "✓", "now": "●", "next": "○", "held": "■", "broken": "✕"}


@dataclass(frozen=True)
class StageInfo:
    """One stage.

    Attributes:
        state: done, now, next, held (stopped on request) or broken.
        share: of it that is done.
    """

    name: str
    state: str
    share: float


def stages_info(record: RunRecord) -> list[StageInfo]:
    """All stages of a run in order. Empty until the worker has said which there are."""
    status, found = record.status, []
    at = status.stages.index(status.stage) if status.stage in status.stages else -1
    for index, name in enumerate(status.stages):
        if status.state == "finished" or index < at:
            found.append(StageInfo(name, "done", 1.0))
        elif index == at:
            state = "now" if record.live else "held" if record.state == "stopped" else "broken"
            found.append(StageInfo(name, state, min(max(status.progress, 0.0), 1.0)))
        else:
            found.append(StageInfo(name, "next", 0.0))
    return found


def detail_html(record: RunRecord, log: str = "", notes: Sequence[str] = (), now: float | None = None) -> str:
    """Heading, progress or outcome, what the worker wants known, the facts and the stages."""
    parts = [_heading(record)]
    if record.live:
        parts.append(states.progress_html(record, now))
    parts.append(states.ended_html(record, log))
    if record.state == "stopped" and not any(note.startswith("Stopped") for note in notes):
        parts.append('<p class="pv-note">Stopped on request. Resume goes on where it stopped.</p>')
    parts += [f'<p class="pv-note">{escape(note)}</p>' for note in notes]
    parts.append(_facts_html(record, time.time() if now is None else now))
    parts.append(stages_html(stages_info(record)))
    return f'<div class="pv-detail">{"".join(parts)}</div>'


SAME_TEXT = "Calibration and perplexity read the same text: such a perplexity is no measurement."


def _heading(record: RunRecord) -> str:
    spec = record.spec
    title = spec.name or GOALS.get(spec.goal, spec.goal) if spec else "Unreadable run"
    return (
        f'<div class="pv-heading"><h3>{escape(title)}</h3>{badge(record.state)}'
        f'<span class="pv-mono pv-quiet">{escape(record.id)}</span></div>'
    )


def run_facts(record: RunRecord, now: float) -> list[tuple[str, str]]:
    """What is known of a run, in order; what is not known is left out."""
    metrics, status, spec = record.metrics, record.status, record.spec
    facts = [("Model", record.model)]
    if spec and spec.goal == "prune":
        layers = f", layers {spec.prune.layers}" if spec.prune.layers else ""
        facts.append(("Method", f"{spec.prune.method}{layers}"))
    if spec and spec.goal in ("prune", "recover"):
        facts += [
            ("Removed", words.sparsity(metrics.get("sparsity"), metrics.get("sparsity_total"))),
            ("Parameters", before_after(metrics, "params", words.count)),
            ("Perplexity", _perplexities(record)),
            ("Measured on", measured_on(metrics)),
        ]
    took = words.duration(status.worked_s(now))
    return [(label, text) for label, text in [*facts, ("Took", took)] if text and text != words.DASH]


def _perplexities(record: RunRecord) -> str:
    """`30.1 ± 0.6 → 41.5 ± 0.9 (+38.3 %)`, whether that may be chance, and what was there before training."""
    found, kept = record.metrics, runs.read_perplexities(record.path)
    before, after = found.get("ppl_before"), found.get("ppl_after")
    if before is None or after is None:
        return words.DASH
    sides = [
        words.perplexity(found[f"ppl_{side}"], found.get(f"ppl_stderr_{side}"))
        for side in ("before", "pruned", "after")
        if found.get(f"ppl_{side}") is not None
    ]
    first, last = kept.get("dense"), kept.get("recovered" if "ppl_recovered" in found else "pruned")
    against = perplexity_difference(first, last) if first and last else Difference()
    return f"{' → '.join(sides)} ({words.change(before, after, against)})"


def before_after(metrics: dict[str, float | None], name: str, write: words.Writer) -> str:
    """`134.5 M → 113.3 M (−15.8 %)`, or a dash."""
    before, after = metrics.get(f"{name}_before"), metrics.get(f"{name}_after")
    if before is None or after is None:
        return words.DASH
    return f"{write(before)} → {write(after)} ({words.difference(before, after)})"


def measured_on(metrics: dict[str, object]) -> str:
    """Which text, which window: it stands beside every perplexity."""
    if not metrics.get("ppl_text"):
        return ""
    tokens = metrics.get("ppl_tokens")
    total = f", {tokens:,} tokens" if isinstance(tokens, int) else ""
    name = "bundled evaluation text" if metrics["ppl_text"] == "bundled" else metrics["ppl_text"]
    return f"{name} in windows of {metrics.get('ppl_window')} tokens{total}"


def _facts_html(record: RunRecord, now: float) -> str:
    rows = run_facts(record, now)
    facts = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in rows)
    return f'<dl class="pv-facts">{facts}</dl>'


def stages_html(stages: list[StageInfo]) -> str:
    """The stages as one line of steps."""
    items = [
        f'<li class="{stage.state}"><span aria-hidden="true">{SIGNS[stage.state]}</span> '
        f"{escape(stage.name)}{f' {stage.share:.0%}' if stage.state in ('now', 'held') else ''}</li>"
        for stage in stages
    ]
    return f'<ol class="pv-steps" aria-label="Stages">{"".join(items)}</ol>' if items else ""
