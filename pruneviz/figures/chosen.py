"""Units chosen by hand: what goes, what it saves together, and why it may not be a plan yet."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from core.errors import PruneError
from core.graph.records import Graph
from core.plan.chosen import chosen_plan
from core.plan.cost import cost, saving
from core.plan.records import KV_BITS, Cost, implied
from core.results import words
from core.spec.units import Units, numbers_text
from pruneviz.data.selection import fitting
from pruneviz.figures.render import render
from pruneviz.figures.structure_map import kind_words

NOTHING = "Nothing is chosen yet. Choose units of a group, here or on another tab; their cost is summed up."
NO_WEIGHTS = (
    "There are no weights beside this config, so nothing can be cut or tried; "
    "give a folder that has them to do either."
)
#: More groups than this are summed up by kind.
SHOWN = 6


@dataclass(frozen=True)
class Chip:
    """Units of one group, or of all groups of a kind.

    Attributes:
        focus: the group to look at, or empty; drop: the group ids, with spaces between, that it stands for.
    """

    title: str
    text: str
    focus: str
    drop: str


@dataclass(frozen=True)
class ChosenInfo:
    """All chosen units.

    Attributes:
        count: how many; saved: by removing all of them, crossings counted once; dense: the whole model.
        sparsity: of the parameters of the kinds that lose units; None if this is no plan.
        follows: what goes although nobody chose it; notes: what was left out of the address.
        problem: why this cannot be cut or tried, or an empty text.
    """

    count: int
    chips: tuple[Chip, ...]
    saved: Cost
    dense: Cost
    sparsity: float | None
    follows: tuple[str, ...]
    notes: tuple[str, ...]
    problem: str


def chosen_info(graph: Graph, text: str | None, weightless: bool = False) -> ChosenInfo:
    """Count what the units in the address save together, through `core.plan.cost`."""
    units, notes = fitting(graph, text)
    sparsity, problem = None, ""
    try:
        sparsity = chosen_plan(graph, units).sparsity if units else None
    except PruneError as error:
        problem = _in_words(graph, units) or str(error)
    if weightless:
        problem = problem or NO_WEIGHTS
    return ChosenInfo(
        sum(map(len, units.values())), _chips(graph, units), saving(graph, units), cost(graph, {}), sparsity,
        _follows(graph, units), tuple(notes), problem,
    )  # fmt: skip


def group_words(graph: Graph, group_id: str) -> str:
    """`Layer 4, FFN channels`."""
    group = graph.group(group_id)
    title = kind_words(group.kind)[0]
    return title if group.layer is None else f"Layer {group.layer}, {title}"


def _in_words(graph: Graph, units: Units) -> str:
    """The groups that would lose everything; empty if there is none."""
    full = implied(graph, units)
    emptied = [group for group, gone in full.items() if len(gone) >= graph.group(group).units]
    if not emptied:
        return ""
    names = [group_words(graph, group) for group in emptied if group in units] or [
        group_words(graph, group) for group in emptied
    ]
    rest = f" and {len(names) - 2} more" if len(names) > 2 else ""
    where = f"{'; '.join(names[:2])}{rest}"
    return f"All units are chosen in {where}. One unit of every group must stay: take one out."


def _chips(graph: Graph, units: Units) -> tuple[Chip, ...]:
    if len(units) <= SHOWN:
        return tuple(
            Chip(group_words(graph, group), _amount(graph, group, numbers), group, group)
            for group, numbers in units.items()
        )
    kinds = dict.fromkeys(graph.group(group).kind for group in units)
    chips = []
    for kind in kinds:
        mine = {group: numbers for group, numbers in units.items() if graph.group(group).kind == kind}
        total = sum(map(len, mine.values()))
        chips.append(Chip(kind_words(kind)[0], f"{total:,} units in {len(mine)} layers", "", " ".join(mine)))
    return tuple(chips)


def _amount(graph: Graph, group: str, numbers: tuple[int, ...]) -> str:
    listed = numbers_text(numbers).replace("-", "–").replace(",", ", ")
    short = listed if len(listed) <= 28 else listed[:24].rpartition(",")[0] + " …"
    return f"{len(numbers):,} of {graph.group(group).units:,}: {short}"


def _follows(graph: Graph, units: Units) -> tuple[str, ...]:
    """Units that go with the chosen ones, per group in words."""
    phrases = []
    for group, gone in implied(graph, units).items():
        more = sorted(set(gone) - set(units.get(group, ())))
        if more:
            name = kind_words(graph.group(group).kind)[3].lower() + ("s" if len(more) > 1 else "")
            phrases.append(f"{name} {numbers_text(more)} of layer {graph.group(group).layer}")
    return tuple(phrases)


def chosen_html(info: ChosenInfo) -> Markup:
    """The card: chips, sums, what follows, and what stands against it."""
    return render("chosen.html", info=info, sums=_sums(info), nothing=NOTHING)


def _minus(amount: str) -> str:
    return amount if amount.startswith("0") else f"−{amount}"


def _of_all(part: int, whole: int) -> str:
    share = part / whole if whole else 0.0
    return "less than 0.01 % of all" if 0 < share < 5e-5 else f"{words.percent(share, 2)} of all"


def _sums(info: ChosenInfo) -> list[tuple[str, str, str]]:
    saved, dense = info.saved, info.dense
    macs, kv, cache = saved.macs_per_token, saved.kv_bytes_per_token, f"KV cache per token, at {KV_BITS} bits"
    return [
        ("Parameters", _minus(f"{saved.params:,}"), _of_all(saved.params, dense.params)),
        ("Multiply-adds per token", _minus(words.count(macs)), _of_all(macs, dense.macs_per_token)),
        (cache, _minus(words.size(kv)), _of_all(kv, dense.kv_bytes_per_token)),
    ]
