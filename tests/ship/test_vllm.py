"""What is said of vLLM, plan by plan."""

from __future__ import annotations

import pytest

from core.graph.discover import discover
from core.plan.records import PruningPlan
from core.ship.records import Subject
from core.ship.vllm import verdict
from tests.handmade import tiny

UNEVEN = {"L00.query_head": (0,)}
EVEN = {f"L0{layer}.query_head": (0, 2) for layer in range(2)}
WIDTHS = {"L00.ffn_channel": (3, 4, 5)}


@pytest.mark.parametrize(
    ("removed", "possible", "words"),
    [
        (UNEVEN, False, "one number of query heads"),
        ({"L00.query_head": (0, 2)}, False, "one number of query heads"),
        ({**EVEN, **WIDTHS}, True, "--model-impl transformers"),
        (EVEN, True, "an ordinary llama"),
        ({"L01.layer": (0,), "L00.query_head": (0, 2)}, True, "an ordinary llama"),
        ({"L01.layer": (0,), "L00.ffn_channel": (3,)}, True, "an ordinary llama"),
        ({"L01.layer": (0,), "residual_channel": (0, 1)}, False, "whole layers are gone"),
        ({"L01.ffn_block": (0,)}, False, "layer 1 has lost a whole block"),
        ({**EVEN, "residual_channel": (0, 1)}, True, "norms are rescaled"),
    ],
)
def test_the_shapes_decide(removed: dict[str, tuple[int, ...]], possible: bool, words: str) -> None:
    model = tiny("llama")
    said = verdict(Subject(discover(model), PruningPlan(removed), model.config.to_dict()))
    assert said.possible == possible and words in said.reason
