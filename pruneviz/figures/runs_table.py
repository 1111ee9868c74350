"""Every run in one table, and the GPUs of this machine with who holds their memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from core.results import words
from core.results.perplexity import by_text
from core.runs.gpus import Gpu, gpus
from core.spec.run import RunSpec
from pruneviz.data.runs import RunRecord, share_done
from pruneviz.figures.render import render

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
GOALS = {
    "explore": "Analysis",
    "prune": "Pruning",
    "recover": "Recovery",
    "evaluate": "Measurement",
    "export": "Export",
}
#: What trains a model that is pruned -> how it is written.
TRAINED_BY = {"none": words.DASH, "lora": "LoRA", "distill": "distillation"}
HEADS = ("Run", "Model", "Method", "Removed", "State", "Perplexity", "Started", "Took")


def state_words(state: str) -> tuple[str, str]:
    """The word for a state, and the class that colours it; one nobody listed under its own name."""
    return STATES.get(state, (state, "idle"))


@dataclass(frozen=True)
class OnText:
    """A perplexity as it changed; `text` names what it is of, `about` says all that it depends on."""

    change: str
    text: str
    about: str


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
    perplexities: tuple[OnText, ...]
    age: str
    took: str
    example: bool = False
    place: str = ""

    @property
    def short_model(self) -> str:
        """Of a path its last part: runs make paths absolute, and what tells them apart comes last."""
        return Path(self.model).name if Path(self.model).is_absolute() else self.model

    @property
    def badge(self) -> tuple[str, str]:
        """The word for its state, and what colours it."""
        return state_words(self.state)


def row_info(record: RunRecord, now: float | None = None) -> Row:
    """What is said of one run. Metrics count over what was asked for."""
    now = time.time() if now is None else now
    spec, status, metrics = record.spec, record.status, record.metrics
    removed = words.removed(metrics)
    if metrics.get("sparsity") is None and spec and spec.goal == "prune":
        removed = _target(spec)
    return Row(
        id=record.id,
        title=run_name(spec, "Unreadable"),
        model=record.model or words.DASH,
        method=_method(spec),
        sparsity=removed,
        state=record.state,
        share=share_done(record) if record.live else None,
        perplexities=_perplexities(metrics),
        age=words.age(status.created or None, now),
        took=words.duration(status.worked_s(now)) or words.DASH,
        example=record.example,
        place=status.place,
    )


def run_name(spec: RunSpec | None, unreadable: str) -> str:
    """The name people gave a run, or what it is for."""
    return unreadable if spec is None else spec.name or GOALS.get(spec.goal, spec.goal)


def run_heading(spec: RunSpec | None) -> str:
    """The name people gave a run, or what it does, by what and how far."""
    name = run_name(spec, "Unreadable run")
    if spec is None or spec.name or spec.goal != "prune":
        return name
    amount = (
        "chosen units" if spec.prune.units else spec.prune.target or words.percent(spec.prune.sparsity, 0)
    )
    return f"{name}: {spec.prune.method}, {amount}"


def _method(spec: RunSpec | None) -> str:
    """What prunes, or what trains a model that is pruned."""
    if spec is None or spec.goal not in ("prune", "recover"):
        return words.DASH
    return spec.prune.method if spec.goal == "prune" else TRAINED_BY[spec.recover.method]


def _target(spec: RunSpec) -> str:
    """How much is to go, before it is measured."""
    if spec.prune.units:
        count = sum(map(len, spec.prune.units.values()))
        return f"{count:,} chosen unit{'' if count == 1 else 's'}"
    if spec.prune.target:
        return f"{spec.prune.target} asked for"
    return f"{words.percent(spec.prune.sparsity)} of block parameters asked for"


def _perplexities(metrics: Mapping[str, Any]) -> tuple[OnText, ...]:
    """One per text that was measured."""
    texts = by_text(metrics)
    names = words.short_texts([str(row.get("ppl_text") or "") for row in texts])
    changes = zip(map(_change, texts), names, map(_about, texts), strict=True)
    return tuple(OnText(*each) for each in changes if each[0] != words.DASH)


def _about(row: Mapping[str, Any]) -> str:
    calibrated = words.calibrated_on(row)
    return ". ".join(
        part for part in (words.measured_on(row), calibrated and f"Calibrated on {calibrated}") if part
    )


def _change(row: Mapping[str, Any]) -> str:
    """Dense, as cut where it was trained after that, and in the end; of a model by itself what it has."""
    sides = [row.get(f"ppl_{side}") for side in ("before", "pruned", "after")]
    if sides[0] is None and sides[2] is None:
        return words.perplexity(row.get("ppl"))
    change = " → ".join(words.perplexity(ppl) for ppl in (sides if sides[1] is not None else sides[::2]))
    return change if row.get("kl_after") is None else f"{change} ({words.divergence(row['kl_after'])})"


def table_html(rows: Sequence[Row], chosen: str = "", notes: Sequence[str] = ()) -> Markup:
    """The table; each row's name opens the run. Below it what has to be said of the examples."""
    return render("runs_table.html", heads=HEADS, rows=rows, chosen=chosen, notes_below=notes)


@dataclass(frozen=True)
class GpuRow:
    """A card for people; `holders` are texts, runs by their id."""

    device: str
    name: str
    memory: str
    share: float
    busy: str
    holders: tuple[str, ...]


def gpus_info(cards: Sequence[Gpu], records: Sequence[RunRecord]) -> list[GpuRow]:
    """What is said of every card; a process that works on a run is called by it."""
    runs = {record.status.pid: record.id for record in records if record.live and record.status.pid}
    return [
        GpuRow(
            gpu.device,
            gpu.name,
            f"{gpu.used_gib:.1f} of {gpu.total_gib:.1f} GiB",
            gpu.used_gib / gpu.total_gib if gpu.total_gib else 0.0,
            "" if gpu.busy is None else f"{words.percent(gpu.busy, 0)} busy",
            tuple(
                f"{runs.get(each.pid, f'{each.name}, process {each.pid}')}"
                + ("" if each.gib is None else f": {each.gib:.1f} GiB")
                for each in gpu.holders
            ),
        )
        for gpu in cards
    ]


def of_this_machine(records: Sequence[RunRecord]) -> Markup:
    """The cards that are here; nothing where there is none."""
    return gpus_html(gpus_info(gpus(), records))


def gpus_html(rows: Sequence[GpuRow]) -> Markup:
    """A line for every card; nothing where there is none."""
    return render("gpus.html", rows=rows) if rows else Markup()
