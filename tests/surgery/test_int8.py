"""Weights in 8 bits: a quarter of the memory, nearly the same answers, ragged models included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from core.evaluate.efficiency import weights_bytes
from core.graph.discover import discover
from core.surgery.int8 import Int8Linear, quantized
from core.surgery.operate import operate
from tests.graph.families import build
from tests.handmade import ids, random_plan


def test_a_matrix_is_off_by_half_a_step_at_most() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(32, 8)
    small = Int8Linear(linear.weight, linear.bias)
    step = linear.weight.abs().amax(dim=1, keepdim=True) / 127
    restored = small.weight * small.scale[:, None]
    assert ((restored - linear.weight).abs() <= step / 2 + 1e-7).all()
    x = torch.randn(3, 32)
    assert torch.allclose(small(x), nn.functional.linear(x, restored, linear.bias), atol=1e-6)
    assert torch.equal(Int8Linear(torch.zeros(2, 3), None)(torch.ones(3)), torch.zeros(2))


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_pruned_models_answer_nearly_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "core.surgery.rewrite.uses_interface", lambda module: False
    )  # outputs are repeated then
    model = build(family)
    graph = discover(model, name=family)
    operate(model, graph, random_plan(graph, 3))
    tokens = ids(model)
    small: Any = quantized(model)
    with torch.no_grad():
        before, after = (one(tokens, use_cache=False).logits for one in (model, small))
    assert 0 < (after - before).abs().mean() < 0.05 * before.abs().mean()
    matrices = [m for m in small.modules() if isinstance(m, Int8Linear)]
    assert matrices and not any(isinstance(m, Int8Linear) for m in model.modules())
    assert small.get_output_embeddings().weight.dtype == torch.float32
    saved = sum(3 * m.weight.numel() - 4 * m.scale.numel() for m in matrices)
    assert weights_bytes(model) - weights_bytes(small) == saved
