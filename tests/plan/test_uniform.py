"""Plans that leave all layers alike: the same counts everywhere, the least of each, near the target."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import SpecError
from core.plan.allocation import allocate
from core.plan.records import PruningPlan
from core.ship.records import Subject
from core.ship.vllm import verdict
from core.spec.prune import PruneSpec
from tests.handmade import graph_of, tiny

SCOPES = ("local", "global", "standardised")


def subject_of(**asked: object) -> tuple[Subject, PruningPlan, dict[str, np.ndarray]]:
    model = tiny("llama", heads=8, kv_heads=2)
    graph, draw = graph_of(model), np.random.default_rng(0)
    scores = {group.id: draw.random(group.units) for group in graph.groups}
    plan = allocate(graph, scores, sparsity=0.4, **asked)
    return Subject(graph, plan, model.config.to_dict()), plan, scores


@pytest.mark.parametrize("scope", SCOPES)
def test_all_layers_end_alike_and_the_least_go(scope: str) -> None:
    subject, plan, scores = subject_of(scope=scope, uniform=True)
    assert len({(tuple(layer.heads.kv_index), layer.ffn) for layer in subject.layers}) == 1
    assert subject.layers[0].heads.uniform in (1, 2, 3) and verdict(subject).possible
    assert abs(plan.sparsity - 0.4) < 0.03
    for layer in range(2):
        gone, worth = plan.removed[f"L0{layer}.query_head"], scores[f"L0{layer}.query_head"]
        for heads in (range(4), range(4, 8)):
            least = sorted(heads, key=lambda head: worth[head])[: len(gone) // 2]
            assert sorted(set(gone) & set(heads)) == sorted(least)


def test_uniform_heads_leave_widths_free() -> None:
    subject, _, _ = subject_of(scope="global", uniform_heads=True)
    assert len({tuple(layer.heads.kv_index) for layer in subject.layers}) == 1
    assert len({layer.ffn for layer in subject.layers}) == 2
    ragged, _, _ = subject_of(scope="global")
    assert verdict(subject).possible and not verdict(ragged).possible


def test_layers_that_are_left_out_cannot_end_alike() -> None:
    with pytest.raises(SpecError, match="layers must be all, where layers are to end alike"):
        PruneSpec(uniform=True, layers="1:2")
