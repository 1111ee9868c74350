"""Weights in 8 bits: a quarter of the memory, nearly the same answers, ragged models included."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from core.evaluate.efficiency import weights_bytes
from core.graph.discover import discover
from core.results.quantities import LLM_INT8, WEIGHTS_ONLY
from core.surgery import int8
from core.surgery.int8 import Int8Linear, int8_kind, quantized
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


@pytest.fixture(autouse=True)
def weights_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has installed decides nothing here, but in the tests that are about it."""
    monkeypatch.setattr(int8, "int8_kind", lambda device: (WEIGHTS_ONLY, "as the test wants"))


def test_without_bitsandbytes_it_is_the_weights_only_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert int8_kind.__wrapped__("cpu") == (WEIGHTS_ONLY, "bitsandbytes is not installed")


def test_a_bitsandbytes_that_does_not_run_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", ModuleType("bitsandbytes"))
    kind, why = int8_kind.__wrapped__("cpu")
    assert kind == WEIGHTS_ONLY and why.startswith("bitsandbytes does not run on cpu: ")
    monkeypatch.setattr(int8, "_keeps_outliers", lambda device: False)
    assert int8_kind.__wrapped__("cpu")[1] == "bitsandbytes computes something else on cpu"


def test_outliers_are_kept_apart_where_bitsandbytes_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLM.int8(): with an activation of 60 all else still counts; at one scale for the row it is lost."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install '.[int8]'")
    assert int8_kind.__wrapped__("cpu") == (LLM_INT8, "")
    monkeypatch.setattr(int8, "_THRESHOLD", 0.0)
    assert int8_kind.__wrapped__("cpu")[0] == WEIGHTS_ONLY, "the check can fail"
    monkeypatch.undo()
    monkeypatch.setattr(int8, "int8_kind", lambda device: (LLM_INT8, ""))
    model = build("llama")
    tokens, small = ids(model), quantized(model)
    with torch.no_grad():
        before, after = (one(tokens, use_cache=False).logits for one in (model, small))
    assert 0 < (after - before).abs().mean() < 0.05 * before.abs().mean()
    assert type(small.model.layers[0].mlp.up_proj).__name__ == "Linear8bitLt"
    assert weights_bytes(small) < weights_bytes(model)
