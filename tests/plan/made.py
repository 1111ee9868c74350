"""Attention and FFN groups of a grouped-query model made of records only, and scores drawn for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.graph.records import Attention, Graph, Group, Member, Parameter, Role, to_runs

RNG = np.random.default_rng


def model_graph(
    layers: int = 6, heads: int = 9, kv_heads: int = 3, dim: int = 4, hidden: int = 36, ffn: int = 96
):  # type: ignore[no-untyped-def]
    """Attention and FFN groups of a grouped-query model, made of records only."""
    parameters: dict[str, Parameter] = {}
    groups: list[Group] = []

    def member(name: str, axis: int, role: Role, units: int, width: int, layer: int) -> Member:
        size = units * width
        parameters[name] = Parameter((size, hidden) if axis == 0 else (hidden, size), 1.0, "Linear", layer)
        return Member(name, axis, role, width, to_runs(np.arange(size, dtype=np.int64)))

    for at in range(layers):
        head = (
            member(f"{at}.q", 0, "layer1", heads, dim, at),
            member(f"{at}.o", 1, "layer2", heads, dim, at),
        )
        kv = tuple(member(f"{at}.{n}", 0, "layer1", kv_heads, dim, at) for n in "kv")
        kv += tuple(replace(m, width=dim * heads // kv_heads) for m in head)
        mlp = (member(f"{at}.up", 0, "layer1", ffn, 1, at), member(f"{at}.down", 1, "layer2", ffn, 1, at))
        parents = tuple(u // (heads // kv_heads) for u in range(heads))
        groups += [
            Group(f"L{at:02d}.kv_group", "kv_group", at, kv_heads, kv),
            Group(
                f"L{at:02d}.query_head", "query_head", at, heads, head,
                parent=f"L{at:02d}.kv_group", parent_unit=parents,
            ),
            Group(f"L{at:02d}.ffn_channel", "ffn_channel", at, ffn, mlp),
        ]  # fmt: skip
    attentions = tuple(Attention(at, str(at), heads, kv_heads, dim, dim) for at in range(layers))
    names = tuple(str(at) for at in range(layers))
    return Graph("made", "made", True, 0.0, parameters, tuple(groups), attentions, names)


def of_weights(graph: Graph) -> Graph:
    """The graph with matrices that are weights of modules, which may get a bias."""
    named = {name: f"{name}.weight" for name in graph.parameters}
    members = {g.id: tuple(replace(m, parameter=named[m.parameter]) for m in g.members) for g in graph.groups}
    return replace(
        graph,
        parameters={named[name]: value for name, value in graph.parameters.items()},
        groups=tuple(replace(g, members=members[g.id]) for g in graph.groups),
    )


def random_scores(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    rng = RNG(seed)
    return {group.id: rng.random(group.units).astype(np.float32) for group in graph.groups}
