"""Every run in one table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from core.results import words
from core.spec.run import RunSpec
from pruneviz.data.runs import RunRecord, share_done

#: State -> (the word people read, the class that colours it).
STATES = {
    "queued": ("waiting", "idle"),
    "starting": ("starting", "busy"),
    "running": ("running", "busy"),
    "stopping": ("stopping", "warn"),
    "finished": ("finished", "good"),
    "failed": ("failed", "bad"),
    "stopped": ("stopped", "warn"),
    "crashed": ("crashed", "bad"),
    "damaged": ("damaged", "bad"),
}
GOALS = {"explore": "Analysis", "prune": "Pruning", "recover": "Recovery", "evaluate": "Measurement"}
#: What trains a model that is pruned -> how it is written.
TRAINED_BY = {"none": words.DASH, "lora": "LoRA"}
HEADS = ("Run", "Model", "Method", "Removed", "State", "Perplexity", "Started", "Took")


@dataclass(frozen=True)
class Row:
    """One run as the table shows it; all texts are for people."""

    id: str
    title: str
    model: str
    method: str
    sparsity: str
    state: str
    share: float | None
    perplexity: str
    age: str
    took: str


def row_info(record: RunRecord, now: float | None = None) -> Row:
    """What is said of one run. Metrics count over what was asked for."""
    now = time.time() if now is None else now
    spec, status, metrics = record.spec, record.status, record.metrics
    removed = words.sparsity(metrics.get("sparsity"), metrics.get("sparsity_total"))
    if metrics.get("sparsity") is None and spec and spec.goal == "prune":
        removed = _asked(spec)
    return Row(
        id=record.id,
        title=(
            spec.name if spec and spec.name else GOALS.get(spec.goal, spec.goal) if spec else "Unreadable"
        ),
        model=record.model or words.DASH,
        method=_method(spec),
        sparsity=removed,
        state=record.state,
        share=share_done(status) if record.live else None,
        perplexity=_change(metrics),
        age=words.age(status.created or None, now),
        took=words.duration(status.worked_s(now)) or words.DASH,
    )


def _method(spec: RunSpec | None) -> str:
    """What prunes, or what trains a model that is pruned."""
    if spec is None or spec.goal not in ("prune", "recover"):
        return words.DASH
    return spec.prune.method if spec.goal == "prune" else TRAINED_BY[spec.recover.method]


def _short(model: str) -> str:
    """Of a path its last part: runs make paths absolute, and what tells them apart comes last."""
    return Path(model).name if Path(model).is_absolute() else model


def _asked(spec: RunSpec) -> str:
    """How much is to go, before it is measured."""
    if spec.prune.units:
        count = sum(map(len, spec.prune.units.values()))
        return f"{count:,} chosen unit{'' if count == 1 else 's'}"
    return f"{words.percent(spec.prune.sparsity)} of block parameters asked for"


def _change(metrics: dict[str, float | None]) -> str:
    """Dense, as cut where it was trained after that, and in the end."""
    found = [metrics.get(f"ppl_{side}") for side in ("before", "pruned", "after")]
    if found[0] is None and found[2] is None:
        return words.DASH
    return " → ".join(words.perplexity(one) for one in (found if found[1] is not None else found[::2]))


def badge(state: str) -> str:
    """A run's state: colour, sign and word."""
    word, colour = STATES.get(state, (state, "idle"))
    return f'<span class="pv-badge {colour}">{escape(word)}</span>'


def table_html(rows: Sequence[Row], chosen: str = "") -> str:
    """The table; each row's name opens the run."""
    head = "".join(f"<th>{name}</th>" for name in HEADS)
    body = "".join(_row_html(row, row.id == chosen) for row in rows)
    return (
        '<div class="pv-card pv-scroll"><table class="pv-table pv-runs" aria-label="All runs">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row_html(row: Row, chosen: bool) -> str:
    name = escape(row.id, quote=True)
    link = f'<a href="?tab=runs&amp;run={name}" data-go="runs" data-run="{name}">{escape(row.title)}</a>'
    share = f"<small>{words.percent(row.share, 0)}</small>" if row.share is not None else ""
    cells = [
        f'{link}<small class="pv-mono">{name}</small>',
        f'<span class="pv-clip" title="{escape(row.model, quote=True)}">{escape(_short(row.model))}</span>',
        escape(row.method),
        escape(row.sparsity),
        badge(row.state) + share,
        escape(row.perplexity),
        row.age,
        row.took,
    ]
    mark = ' class="chosen" aria-current="true"' if chosen else ""
    return f'<tr{mark} data-go="runs" data-run="{name}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
