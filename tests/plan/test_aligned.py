"""A plan whose widths are no whole blocks says what they cost; one that is aligned does not."""

from __future__ import annotations

from core.graph.discover import discover
from core.plan.allocation import allocate
from tests.conftest import llama_config, random_model


def test_widths_that_are_no_whole_blocks_are_told_with_their_price() -> None:
    graph = discover(random_model(llama_config(intermediate_size=96)))
    odd = allocate(graph, None, sparsity=0.2, kinds=("ffn_channel",))
    even = allocate(graph, None, sparsity=0.34, kinds=("ffn_channel",), multiple=32)
    assert any(
        "2 of 2 widths are no multiple of 32" in note and "in q8_0 (dense" in note for note in odd.notes
    )
    assert not any("no multiple" in note for note in even.notes)
