"""What goes with a unit, counted by hand on a small graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.graph.records import Edge, Graph, Group, Member, to_runs
from core.plan.records import Cost
from pruneviz.figures.structure import short_op, spans_text, structure_info
from tests.pruneviz.samples import FFN, HEAD_DIM, HEADS, HIDDEN, KV_HEADS, LAYERS, VOCAB, graph


def test_an_ffn_channel_takes_a_row_and_a_column() -> None:
    info = structure_info(graph(), "L01.ffn_channel", 5)
    assert [(s.title, s.where, s.params) for s in info.slices] == [
        ("up", "row 5 of 12", HIDDEN), ("down", "column 5 of 12", HIDDEN),
    ]  # fmt: skip
    assert [s.trigger for s in info.slices] == [True, False]
    assert info.cost == Cost(2 * HIDDEN, 2 * HIDDEN, 0) and info.note is None
    assert (info.layer, info.unit, info.units) == (1, 5, FFN)


def test_a_query_head_leaves_the_keys_that_others_read() -> None:
    info = structure_info(graph(), "L00.query_head", 3)
    goes = {s.title: s for s in info.slices if not s.stays}
    stays = {s.title: s for s in info.slices if s.stays}
    assert goes["q"].where == "rows 12–15 of 16" and goes["o"].where == "columns 12–15 of 16"
    assert set(stays) == {"k", "v"} and stays["k"].where == "rows 4–7 of 8"
    assert info.cost.params == 2 * HEAD_DIM * HIDDEN and info.cost.kv_bytes_per_token == 0
    assert info.note and "Key-value head 1 stays: query heads 2" in info.note


def test_a_key_value_head_takes_its_query_heads_along() -> None:
    info = structure_info(graph(), "L00.kv_group", 1)
    assert {s.title: s.where for s in info.slices} == {
        "k": "rows 4–7 of 8", "v": "rows 4–7 of 8", "q": "rows 8–15 of 16", "o": "columns 8–15 of 16",
    }  # fmt: skip
    per_head = HEAD_DIM * HIDDEN
    assert info.cost.params == 2 * per_head + 2 * per_head * HEADS // KV_HEADS
    assert info.cost.kv_bytes_per_token == 2 * HEAD_DIM * 2
    assert not any(s.stays for s in info.slices)


def with_residual() -> Graph:
    """The small graph with its residual channels and a tied output."""
    base = graph()
    runs = to_runs(np.arange(HIDDEN))
    members = [Member("embed", 1, "embedding", 1, runs)]
    for i in range(LAYERS):
        members += [Member(f"layer{i}.norm.weight", 0, "vector", 1, runs)]
        members += [Member(f"layer{i}.down.weight", 0, "layer1", 1, runs)]
        members += [Member(f"layer{i}.up.weight", 1, "layer2", 1, runs)]
    group = Group("residual_channel", "residual_channel", None, HIDDEN, tuple(members))
    return replace(base, groups=(*base.groups, group), tied={"head.weight": "embed"})


def test_the_same_slice_of_every_layer_is_drawn_once() -> None:
    info = structure_info(with_residual(), "residual_channel", 0)
    assert {s.title: (s.times, s.params) for s in info.slices} == {
        "embed = head": (1, VOCAB), "norm": (2, 2), "down": (2, 2 * FFN), "up": (2, 2 * FFN),
    }  # fmt: skip
    assert info.cost.params == VOCAB + 2 + 4 * FFN and info.layer is None
    assert {s.title for s in info.slices if s.trigger} == {"embed = head"}


def test_links_are_the_edges_of_the_graph_and_name_what_computes() -> None:
    ops = ("aten.view", "aten.silu", "aten.mul.Tensor", "aten.t", "aten.bmm", "aten._softmax", "aten.mm")
    base = replace(
        graph(),
        edges=(
            Edge("layer0.up.weight", "layer0.down.weight", ops),
            Edge("layer0.q.weight", "layer0.o.weight", ops),
        ),
    )
    info = structure_info(base, "L00.ffn_channel", 0)
    wanted = [(0, 1, "silu · mul · matmul · softmax")]
    assert [(link.source, link.target, link.label) for link in info.links] == wanted
    assert short_op("aten.silu.default") == "silu" and short_op("gelu") == "gelu"


def test_without_edges_producers_are_linked_to_consumers() -> None:
    info = structure_info(graph(), "L00.ffn_channel", 0)
    assert [(link.source, link.target, link.label) for link in info.links] == [(0, 1, "")]


def test_units_that_do_not_exist() -> None:
    with pytest.raises(IndexError, match="units 0 to 11, got 12"):
        structure_info(graph(), "L00.ffn_channel", FFN)
    with pytest.raises(KeyError):
        structure_info(graph(), "L09.ffn_channel", 0)


def test_scattered_indices_are_counted() -> None:
    part = structure_info(graph(), "L00.ffn_channel", 0).slices[0]
    assert replace(part, spans=tuple((i, i + 1) for i in range(0, 12, 3))).where == "8 separate rows of 12"


@pytest.mark.parametrize(
    ("spans", "text"),
    [(((3, 3),), "3"), (((0, 7),), "0–7"), (((0, 0), (5, 6)), "0, 5–6"),
     (tuple((i, i) for i in range(8)), "0, 1, 2 and 5 more")],
)  # fmt: skip
def test_spans_are_read_out_shortly(spans: tuple[tuple[int, int], ...], text: str) -> None:
    assert spans_text(spans) == text
