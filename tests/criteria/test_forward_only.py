"""Criteria that only read activations, written out."""

from __future__ import annotations

import numpy as np
import pytest

from tests.criteria.case import SHARED, WIDTH, case, found, read_by


def forward_only(name: str, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """One score per input channel from inputs (tokens, d_in) and a weight (d_out, d_in)."""
    tokens = len(x)
    mean = x.sum(axis=0) / tokens
    variance = ((x - mean) ** 2).sum(axis=0) / (tokens - 1)
    norm = np.sqrt((x**2).sum(axis=0))
    squares = (w**2).sum(axis=0)
    return {
        "wanda": np.abs(w).sum(axis=0) * norm,
        "ifv": variance,
        "wifv": variance * squares,
        "wifn": np.abs(w).mean(axis=0) * norm,
    }[name]


@pytest.mark.parametrize("name", ["wanda", "ifv", "wifv", "wifn"])
def test_forward_only_criteria(name: str) -> None:
    model, _, tokens = case()
    for group, module, width in (
        ("L00.ffn_channel", model.model.layers[0].mlp.down_proj, 1),
        ("L01.query_head", model.model.layers[1].self_attn.o_proj, WIDTH),
        ("L01.kv_group", model.model.layers[1].self_attn.o_proj, WIDTH * SHARED),
    ):
        path = next(n for n, m in model.named_modules() if m is module)
        weight = module.weight.detach().double().numpy()
        per_channel = forward_only(name, read_by(model, tokens, path), weight)
        expected = per_channel.reshape(-1, width).sum(axis=1)
        assert np.allclose(found(name)[group], expected, rtol=1e-3), group


def test_residual_channels_are_read_by_every_layer() -> None:
    model, _, tokens = case()
    names = [
        f"model.layers.{layer}.{one}_proj"
        for layer in (0, 1)
        for one in ("self_attn.q", "self_attn.k", "self_attn.v", "mlp.gate", "mlp.up")
    ]
    expected = sum(
        forward_only("wanda", read_by(model, tokens, n), model.get_submodule(n).weight.detach().numpy())
        for n in [*names, "lm_head"]
    )
    assert np.allclose(found("wanda")["residual_channel"], expected, rtol=1e-3)
