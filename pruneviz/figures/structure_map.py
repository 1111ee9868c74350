"""The layer x kind map: every group of a model with its units and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
from markupsafe import Markup

from core.graph.records import Graph, Group, Member
from core.results import words
from pruneviz.figures.render import render

#: Kind -> (title, what it is, colour, one unit in words).
KINDS: dict[str, tuple[str, str, str, str]] = {
    "query_head": ("Query heads", "Type B, attention", "attention", "Query head"),
    "kv_group": ("Key-value heads", "Type B, with their query heads", "attention", "Key-value head"),
    "ffn_channel": ("FFN channels", "Type A", "ffn", "FFN channel"),
    "residual_channel": ("Residual channels", "Type C, all layers at once", "residual", "Residual channel"),
    "attention_block": ("Attention", "whole, the stream goes past it", "attention", "Attention block"),
    "ffn_block": ("FFN", "whole, the stream goes past it", "ffn", "FFN block"),
    "layer": ("Layers", "depth: all of a layer", "residual", "Layer"),
    "head_dim_pair": ("Head dimensions", "found, not offered", "embedding", "Dimension"),
    "expert": ("Experts", "found, not offered", "embedding", "Expert"),
}


@dataclass(frozen=True)
class Cell:
    """One group as a cell of the map.

    Attributes:
        params: parameters that belong to at least one of its units, shared ones included.
        size: the same in words.
    """

    group: str
    kind: str
    title: str
    layer: int | None
    units: int
    params: int
    size: str
    prunable: bool
    reason: str | None
    colour: str


@dataclass(frozen=True)
class MapInfo:
    """All cells, and the couplings that cannot be pruned: (kind, layers in words, reason)."""

    model: str
    family: str
    config_only: bool
    seconds: float
    layers: tuple[int, ...]
    kinds: tuple[str, ...]
    cells: tuple[Cell, ...]
    refused: tuple[tuple[str, str, str], ...]

    def to_browser(self, selected: str, chosen: Mapping[str, int] | None = None) -> dict[str, Any]:
        """What the map component draws.

        Args:
            selected: a group id, or empty; chosen: group id -> how many of its units are chosen.
        """
        return {
            "layers": list(self.layers),
            "kinds": [_column(kind) for kind in self.kinds],
            "cells": [asdict(cell) for cell in self.cells],
            "most": max((cell.params for cell in self.cells), default=1) or 1,
            "selected": selected,
            "chosen": dict(chosen or {}),
        }


def kind_words(kind: str) -> tuple[str, str, str, str]:
    """Title, note, colour and unit of a kind; one nobody listed is shown under its own name."""
    plain = kind.replace("_", " ").capitalize()
    return KINDS.get(kind, (plain, "found, not offered", "embedding", plain))


def _column(kind: str) -> dict[str, str]:
    title, note, _, _ = kind_words(kind)
    return {"kind": kind, "title": title, "note": note}


def kinds_in_order(graph: Graph) -> list[str]:
    """The kinds of this model: those we know first, in our order."""
    kinds: set[str] = {group.kind for group in graph.groups}
    return [kind for kind in KINDS if kind in kinds] + sorted(kinds - set(KINDS))


def map_info(graph: Graph) -> MapInfo:
    """Count every group."""
    kinds = kinds_in_order(graph)
    children: dict[str, list[Group]] = {}
    for group in graph.groups:
        children.setdefault(group.parent or "", []).append(group)
    cells = tuple(_cell(graph, group, children.get(group.id, [])) for group in graph.groups)
    return MapInfo(
        graph.model, graph.family, graph.config_only, graph.seconds,
        tuple(range(len(graph.layer_modules))), tuple(kinds), cells, _refused(graph),
    )  # fmt: skip


def _cell(graph: Graph, group: Group, children: list[Group]) -> Cell:
    title, _, colour, _ = kind_words(group.kind)
    parents = [graph.by_id[group.parent]] if group.parent else []
    params = touched(graph, [group, *parents, *children])
    return Cell(
        group.id, group.kind, title, group.layer, group.units, params, words.count(params),
        group.prunable, group.reason, colour,
    )  # fmt: skip


def touched(graph: Graph, groups: list[Group]) -> int:
    """Parameters in at least one unit of these groups."""
    cut: dict[tuple[str, int | None], dict[int, int]] = {}
    for (name, at, dim), members in _places(groups).items():
        cut.setdefault((name, at), {})[dim] = _length(members)
    total = 0
    for (name, at), dims in cut.items():
        shape = graph.parameters[name].shape
        sizes = [(dim, size) for dim, size in enumerate(shape) if at is None or dim > 0]
        left = prod(size - dims.get(dim, 0) for dim, size in sizes)
        total += prod(size for _, size in sizes) - left
    return total


def _places(groups: list[Group]) -> dict[tuple[str, int | None, int], list[Member]]:
    places: dict[tuple[str, int | None, int], list[Member]] = {}
    for group in groups:
        for member in group.members:
            places.setdefault((member.parameter, member.at, member.dim), []).append(member)
    return places


def _length(members: list[Member]) -> int:
    """Indices owned by these members of one parameter; lists are written out only where they may overlap."""
    if len(members) == 1:
        return sum(count for _, count, _ in members[0].runs)
    return len(np.unique(np.concatenate([member.index().ravel() for member in members])))


def _refused(graph: Graph) -> tuple[tuple[str, str, str], ...]:
    """Couplings that cannot go, one line per kind and reason."""
    refused: dict[tuple[str, str], list[int]] = {}
    for entry in graph.not_prunable:
        key = (str(entry.get("kind", "")), str(entry.get("reason", "")))
        refused.setdefault(key, []).extend([] if entry.get("layer") is None else [int(entry["layer"])])
    for group in graph.groups:
        if not group.prunable:
            layers = refused.setdefault((group.kind, group.reason or "no reason was recorded"), [])
            if group.layer is not None and group.layer not in layers:
                layers.append(group.layer)
    return tuple((kind, _layers_text(layers, graph), reason) for (kind, reason), layers in refused.items())


def _layers_text(layers: list[int], graph: Graph) -> str:
    if not layers or len(set(layers)) == len(graph.layer_modules):
        return "all layers"
    numbers = sorted(set(layers))
    return ", ".join(map(str, numbers[:8])) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")


def about_html(info: MapInfo) -> Markup:
    """Where the map comes from, in one sentence."""
    return render("map_about.html", info=info)


def refused_html(info: MapInfo) -> Markup:
    """What was found but cannot be pruned, with the reason; empty if there is nothing."""
    rows = [(kind_words(kind)[0], layers, reason) for kind, layers, reason in info.refused]
    return render("refused.html", rows=rows) if rows else Markup()
