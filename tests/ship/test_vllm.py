"""What is said of vLLM, plan by plan."""

from __future__ import annotations

import pytest

from core.plan.records import PruningPlan
from core.ship.records import Subject
from core.ship.vllm import verdict
from tests.handmade import graph_of, tiny

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
        ({**EVEN, "residual_channel": (0, 1)}, True, "norms are rescaled"),
    ],
)
def test_the_shapes_decide(removed: dict[str, tuple[int, ...]], possible: bool, words: str) -> None:
    model = tiny("llama")
    said = verdict(Subject(graph_of(model), PruningPlan(removed), model.config.to_dict()))
    assert said.possible == possible and words in said.reason
