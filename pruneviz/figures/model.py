"""Where a model's parameters sit, and what it looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import psutil
from markupsafe import Markup

from core.graph.records import Graph
from core.results import words
from core.results.scores import SCORES
from core.results.sensitivity import SENSITIVITY
from core.results.similarity import SIMILARITY
from core.runs.artifacts import GROUPS
from pruneviz.data.cards import Card
from pruneviz.data.runs import RunRecord, source_key
from pruneviz.figures.render import render

#: Part of the model -> what a person reads, in the order shown.
PARTS = {
    "attention": "Attention heads",
    "ffn": "Feed-forward channels",
    "embedding": "Embeddings and output",
    "other": "Norms and the rest",
}
#: What is said of a folder with a config alone.
NO_WEIGHTS = "No weights are here, only a config: the structure can be shown, nothing measured or cut."
_KIND_PARTS = {"query_head": "attention", "kv_group": "attention", "ffn_channel": "ffn", "expert": "ffn"}


@dataclass(frozen=True)
class PartsInfo:
    """Parameters by part; `shares` add up to 1."""

    params: dict[str, int]

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self.params.values())

    @property
    def shares(self) -> dict[str, float]:
        """Part -> fraction of all parameters."""
        return {part: number / self.total for part, number in self.params.items()} if self.total else {}


def parts_info(graph: Graph) -> PartsInfo:
    """Count every parameter once, under the first part that claims it."""
    part_of: dict[str, str] = {}
    for group in graph.groups:
        part = _KIND_PARTS.get(group.kind)
        for member in group.members if part else ():
            part_of.setdefault(member.parameter, str(part))
    counted = dict.fromkeys(PARTS, 0)
    for name, parameter in graph.parameters.items():
        outside = parameter.layer is None and len(parameter.shape) > 1
        counted[part_of.get(name, "embedding" if outside else "other")] += prod(parameter.shape)
    return PartsInfo(counted)


def parts_html(info: PartsInfo) -> Markup:
    """One bar per part."""
    text = "; ".join(f"{PARTS[part]} {words.percent(share)}" for part, share in info.shares.items())
    return render("parts.html", info=info, titles=PARTS, text=text)


def card_facts(card: Card) -> list[tuple[str, str]]:
    """What the card shows, in order; facts nobody knows are left out."""
    grouped = card.heads and card.kv_heads and card.kv_heads < card.heads
    heads = f"{card.heads} query, {card.kv_heads} key-value" if grouped else words.count(card.heads)
    facts = [
        ("Parameters", words.count(card.params)),
        ("Layers", words.count(card.layers)),
        ("Attention heads", f"{heads} × {card.head_dim}" if card.head_dim else heads),
        ("Feed-forward width", words.count(card.ffn)),
        ("Hidden size", words.count(card.hidden)),
        ("Vocabulary", words.count(card.vocab)),
        ("Context", f"{card.context:,} tokens" if card.context else words.DASH),
        ("Output weights", _either(card.tied, "shared with embeddings", "own matrix")),
        ("Chat template", _either(card.chat_template, "yes", "no")),
        ("Files", " ".join(filter(None, [words.size(card.stored_bytes), card.stored_dtype]))),
        ("Licence", card.licence or words.DASH),
        ("On the hub", card.access or words.DASH),
        ("Family", " · ".join(filter(None, [card.family, card.architecture])) or words.DASH),
    ]
    return [(label, value) for label, value in facts if value != words.DASH]


def _either(value: bool | None, yes: str, no: str) -> str:
    return words.DASH if value is None else yes if value else no


def memory_words(card: Card, free: int | None = None) -> str:
    """Where the weights are, or what they would take of so many bytes of memory that are free."""
    if not card.device:
        needed = "" if card.params is None or free is None else _needed(card.params, free)
        if card.bare:
            return NO_WEIGHTS + (f" Weights would take {needed}." if needed else "")
        where = "Not in memory. Weights are read when Compare or a what-if needs them"
        return f"{where}: they take {needed}." if needed else f"{where}."
    gib = f", {card.memory_gib:.2f} GiB" if card.memory_gib is not None else ""
    return f"In memory on {card.device} in {card.dtype}{gib}."


def _needed(params: int, free: int) -> str:
    """`513 MiB in float32, half in 16 bits (257 MiB); 22 GiB of this machine’s memory are free`."""
    plain, half, there = map(words.size, (params * 4, params * 2, free))
    short = "" if params * 4 <= free else ": more than is free in float32"
    return f"{plain} in float32, half in 16 bits ({half}); {there} of this machine’s memory are free{short}"


def card_html(card: Card) -> Markup:
    """The architecture card."""
    memory = memory_words(card, int(psutil.virtual_memory().available))
    return render("card.html", name=card.name, pairs=card_facts(card), memory=memory, refusal=card.refusal)


#: Artifact -> (what it is, the tab that shows it).
ANALYSES = {
    GROUPS: ("Coupled groups", "structure"),
    SIMILARITY: ("Similarity of heads", "heads"),
    SCORES: ("Importance scores", "scores"),
    SENSITIVITY: ("Sensitivity of layers", "sensitivity"),
}


@dataclass(frozen=True)
class Analysis:
    """One kept analysis; `run` is empty where there is none. An `example` came with the program."""

    artifact: str
    title: str
    tab: str
    run: str = ""
    made: float | None = None
    example: bool = False


def analyses_info(records: Sequence[RunRecord], model: str) -> list[Analysis]:
    """The newest of each kind for this model. `records` are newest first."""
    key, analyses = source_key(model), []
    for artifact, (title, tab) in ANALYSES.items():
        run = next((r for r in records if source_key(r.model) == key and r.has(artifact)), None)
        made = (run.path / artifact).stat().st_mtime if run else None
        example = run is not None and run.example
        analyses.append(Analysis(artifact, title, tab, run.id if run else "", made, example))
    return analyses


def analyses_html(
    analyses: Sequence[Analysis], notes: Sequence[str] = (), now: float | None = None
) -> Markup:
    """A table; what is there links to its tab and its run. Below it what has to be said of the examples."""
    return render("analyses.html", analyses=analyses, notes_below=notes, now=now)
