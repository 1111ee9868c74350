"""One run: its stages, how far it is, what came out, what went wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from core.errors import ArtifactError
from core.results import words
from core.results.noise import Difference, perplexity_difference
from core.results.perplexity import by_text, on_text
from core.results.quantities import QUANTITIES, perplexity_titles
from core.spec.export import FORMATS, ExportSpec
from pruneviz.data import exports, runs
from pruneviz.data.runs import RunRecord
from pruneviz.figures import states
from pruneviz.figures.render import render
from pruneviz.figures.runs_table import run_heading, state_words

_CONTROL = "The dense model, trained on the same text"
#: Status of a stage -> the sign before it.
SIGNS = {"done": "✓", "now": "●", "next": "○", "held": "■", "broken": "✕"}


@dataclass(frozen=True)
class StageInfo:
    """One stage.

    Attributes:
        title: what it does, in words; state: done, now, next, held (stopped on request) or broken.
        share: of it that is done.
    """

    name: str
    title: str
    state: str
    share: float


def stages_info(record: RunRecord) -> list[StageInfo]:
    """All stages of a run in order. Empty until the worker has said which there are."""
    status, stages = record.status, []
    at = status.stages.index(status.stage) if status.stage in status.stages else -1
    for index, name in enumerate(status.stages):
        title = status.title_of(name)
        if status.state == "finished" or index < at:
            stages.append(StageInfo(name, title, "done", 1.0))
        elif index == at:
            state = "now" if record.live else "held" if record.state == "stopped" else "broken"
            stages.append(StageInfo(name, title, state, min(max(status.progress, 0.0), 1.0)))
        else:
            stages.append(StageInfo(name, title, "next", 0.0))
    return stages


def detail_html(
    record: RunRecord, log: str = "", notes: Sequence[str] = (), now: float | None = None
) -> Markup:
    """Heading, progress or outcome, what the worker wants known, the facts and the stages."""
    progress = states.progress_html(record, now) if record.live else Markup()
    texts = list(notes)
    if record.state == "stopped" and not any(note.startswith("Stopped") for note in notes):
        texts.insert(0, "Stopped on request. Resume goes on where it stopped.")
    return render(
        "run_detail.html", id=record.id, title=run_heading(record.spec), texts=texts,
        example=record.example, state=state_words(record.state), signs=SIGNS,
        standing=progress + states.ended_html(record, log),
        pairs=run_facts(record, time.time() if now is None else now), stages=stages_info(record),
    )  # fmt: skip


def run_facts(record: RunRecord, now: float) -> list[tuple[str, str]]:
    """What is known of a run, in order; what is not known is left out."""
    metrics, status, spec = record.metrics, record.status, record.spec
    facts = [("Model", record.model)]
    if spec and spec.goal == "prune":
        layers = f", layers {spec.prune.layers}" if spec.prune.layers else ""
        alone = ", every matrix by itself" if spec.prune.without_dependency else ""
        facts.append(("Method", f"{spec.prune.method}{layers}{alone}"))
    if spec and spec.goal in ("prune", "recover"):
        facts += [
            ("Removed", words.removed(metrics)),
            ("With earlier cuts", words.all_cuts(metrics)),
            ("Parameters", before_after(metrics, "params", words.count)),
        ]
    facts += _files(record) if spec and spec.goal == "export" else _perplexities(record)
    took = words.duration(status.worked_s(now))
    place = "Works on" if record.live else "Worked on"
    return [
        (label, text)
        for label, text in [*facts, (place, status.place), ("Took", took)]
        if text and text != words.DASH
    ]


def _files(record: RunRecord) -> list[tuple[str, str]]:
    """What an export wrote, and where."""
    try:
        exported = exports.written(record)
    except ArtifactError as error:
        return [("Files", str(error))]
    asked = record.spec.export if record.spec else ExportSpec()
    facts = [("Format", FORMATS[asked.to])]
    if exported is None:
        return facts
    count = len(exported.files)
    facts += [("Files", f"{count:,} file{'' if count == 1 else 's'}, {words.size(exported.bytes)}")]
    facts += [("Folder", exported.folder), ("On the hub", exported.pushed)]
    return [*facts, *(("To know", note) for note in exported.notes)]


def _perplexities(record: RunRecord) -> list[tuple[str, str]]:
    """The perplexity on every text, and what it was measured on; then what chose the units that went."""
    texts, facts = by_text(record.metrics), list[tuple[str, str]]()
    for number, (title, row) in enumerate(zip(perplexity_titles(texts), texts, strict=True)):
        facts.append((title, _perplexity(record, number, row)))
        facts += [(perplexity_titles(texts, "kl")[number], _divergence(row))] if "kl_after" in row else []
        facts += [(_CONTROL, _control(row))] if row.get("ppl_control") is not None else []
        facts += [("With its couplings", _coupled(row))] if row.get("ppl_coupled") is not None else []
        label = title.replace(QUANTITIES["ppl"].title, "Measured on", 1)
        facts.append((label, words.measured_on(row)))
    return [*facts, *(("Calibrated on", words.calibrated_on(row)) for row in texts[:1])]


def _perplexity(record: RunRecord, number: int, row: Mapping[str, Any]) -> str:
    """`30.1 ± 0.6 → 41.5 ± 0.9 (+38.3 %)`, whether that may be chance, and what was there before training."""
    before, after = row.get("ppl_before"), row.get("ppl_after")
    if before is None or after is None:
        return words.perplexity(row.get("ppl"), row.get("ppl_stderr"))
    sides = [
        words.perplexity(row[f"ppl_{side}"], row.get(f"ppl_stderr_{side}"))
        for side in ("before", "pruned", "after")
        if row.get(f"ppl_{side}") is not None
    ]
    perplexities = runs.read_perplexities(record.path)
    first, last = (
        on_text(perplexities.get(side, ()), number, row.get("ppl_sha256"))
        for side in ("dense", "recovered" if "ppl_recovered" in row else "pruned")
    )
    against = perplexity_difference(first, last) if first and last else Difference()
    return f"{' → '.join(sides)} ({words.change(before, after, against)})"


def _divergence(row: Mapping[str, Any]) -> str:
    """`0.53 ± 0.02 → 0.31 ± 0.01 nats`: before and after training, where there was one."""
    sides = [
        words.divergence(row[f"kl_{side}"], row.get(f"kl_stderr_{side}"))
        for side in ("pruned", "after")
        if row.get(f"kl_{side}") is not None
    ]
    return " → ".join(sides)


def _control(row: Mapping[str, Any]) -> str:
    """`19.6 ± 1.2 → 18.9 ± 1.1 (−3.6 %), 0.02 ± 0.01 nats`: dense, before and after the same text."""
    before, after = (
        words.perplexity(row.get(f"ppl_{side}"), row.get(f"ppl_stderr_{side}"))
        for side in ("before", "control")
    )
    change = words.difference(row.get("ppl_before"), row["ppl_control"])
    far = words.divergence(row.get("kl_control"), row.get("kl_stderr_control"))
    return f"{before} → {after} ({change}), {far} away"


def _coupled(row: Mapping[str, Any]) -> str:
    """The same of the plan with its couplings, which an ablation measures beside the cut without them."""
    sides = ("before", "coupled", "coupled_recovered")
    present = [side for side in sides if row.get(f"ppl_{side}") is not None]
    texts = [words.perplexity(row[f"ppl_{side}"], row.get(f"ppl_stderr_{side}")) for side in present]
    change = words.change(row["ppl_before"], row[f"ppl_{present[-1]}"], Difference())
    return f"{' → '.join(texts)} ({change})"


def before_after(metrics: dict[str, float | None], name: str, write: words.Writer) -> str:
    """`134.5 M → 113.3 M (−15.8 %)`, or a dash."""
    before, after = metrics.get(f"{name}_before"), metrics.get(f"{name}_after")
    if before is None or after is None:
        return words.DASH
    return f"{write(before)} → {write(after)} ({words.difference(before, after)})"
