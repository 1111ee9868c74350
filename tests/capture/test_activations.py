"""Sizes of features against their definition, and what cannot be watched."""

from __future__ import annotations

import numpy as np
import pytest

from core.capture.activations import FeatureSizes
from core.capture.statistics import capture
from tests.graph.families import build, graph_of
from tests.handmade import graph_of as handmade_graph
from tests.handmade import ids, tiny
from tests.naive import inputs_of

READS = {
    "attention": "self_attn.q_proj",
    "attention_out": "self_attn.o_proj",
    "ffn": "mlp.up_proj",
    "ffn_out": "mlp.down_proj",
}


@pytest.mark.parametrize("needs", [{"input_norm"}, {"gradient_first"}])
def test_sizes_are_those_of_what_matrices_read(needs: set[str]) -> None:
    model = tiny()
    graph, tokens = handmade_graph(model), ids(model, batch=5)
    tokens[:, 0] = model.config.bos_token_id
    sizes = FeatureSizes(model, graph)
    capture(model, graph, tokens, needs=needs, batch_size=2, sizes=sizes)
    counted = np.tile(np.arange(12) > 0, 5)  # the first token begins the text
    assert sizes.tokens == counted.sum() == 55
    points = {(point.layer, point.place): point for point in sizes.points()}
    assert list(points) == [(layer, place) for layer in (0, 1) for place in READS]
    for (layer, place), point in points.items():
        x = inputs_of(model, tokens, f"model.layers.{layer}.{READS[place]}")[0][counted]
        expected = (np.abs(x).mean(), np.sqrt((x**2).mean()), np.abs(x).max())
        assert (point.mean, point.rms, point.largest) == pytest.approx(expected, rel=1e-5)


def test_a_stack_of_experts_is_left_out() -> None:
    model, graph = build("mixtral"), graph_of("mixtral")
    sizes = FeatureSizes(model, graph)
    capture(model, graph, ids(model), needs={"input_norm"}, kinds=("query_head",), sizes=sizes)
    assert {point.place for point in sizes.points()} == {"attention", "attention_out"}
