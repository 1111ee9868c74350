"""How alike the heads of a model attend: what the browser draws, and the same numbers for tests."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from core.graph.records import Graph
from core.results.similarity import Similarity
from pruneviz.figures.states import paragraph_html


@dataclass(frozen=True)
class HeadsInfo:
    """Divergences of all layers and where they come from.

    Attributes:
        layers: layer numbers, in the order of `divergence`, (layers, heads, heads), float32.
        shares: for each query head the key-value head it reads, or None where each has its own.
        text, tokens: what was read, and how many query positions were averaged.
        groups: per layer the group whose units these heads are; empty where they cannot be pruned.
    """

    layers: tuple[int, ...]
    divergence: NDArray[np.float32]
    shares: tuple[int, ...] | None
    text: str
    tokens: int
    groups: tuple[str, ...] = ()

    @property
    def heads(self) -> int:
        """Heads of one layer."""
        return int(self.divergence.shape[1])

    def to_browser(self, tau: float) -> dict[str, Any]:
        """Raw float32 numbers as base64, little-endian, and labels; `tau` is the first threshold."""
        raw = np.ascontiguousarray(self.divergence, dtype="<f4").tobytes()
        return {
            "layers": list(self.layers),
            "heads": self.heads,
            "divergence": base64.b64encode(raw).decode("ascii"),
            "shares": list(self.shares) if self.shares else None,
            "tau": tau,
            "groups": list(self.groups) or [""] * len(self.layers),
        }


def heads_info(similarity: Similarity, graph: Graph | None = None) -> HeadsInfo:
    """Collect what the Heads tab shows; `graph` adds which heads share a key-value head."""
    return HeadsInfo(
        tuple(similarity.layers), similarity.divergence.astype(np.float32),
        _shares(graph, similarity.divergence.shape[1]) if graph else None, similarity.text, similarity.tokens,
        tuple(_group(graph, layer) for layer in similarity.layers) if graph else (),
    )  # fmt: skip


def _group(graph: Graph, layer: int) -> str:
    """The prunable group of this layer's query heads, if there is one."""
    groups = graph.of_kind("query_head")
    return next((group.id for group in groups if group.layer == layer and group.prunable), "")


def _shares(graph: Graph, heads: int) -> tuple[int, ...] | None:
    """Key-value head per query head, if it is the same in all layers."""
    shares = {group.parent_unit for group in graph.of_kind("query_head")}
    only = shares.pop() if len(shares) == 1 else ()
    return only if len(only) == heads else None


def source_html(info: HeadsInfo) -> Markup:
    """Where the divergences come from, in one sentence."""
    return paragraph_html(
        "Distance between what two heads attend to: the square root of the Jensen-Shannon divergence "
        f"(natural logarithm), averaged over {info.tokens:,} query positions of the text “{info.text}”. "
        f"0 means the same; {np.sqrt(np.log(2)):.2f} is the most two heads can differ."
    )
