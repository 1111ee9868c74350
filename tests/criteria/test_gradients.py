"""What is taken of every sample's gradient, and fusion, written out unit by unit and sample by sample."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from core.capture.statistics import capture
from core.criteria.scoring import score
from tests.criteria.case import SHARED, WIDTH, case, found
from tests.naive import naive_products


@cache
def products() -> list[dict[str, Tensor]]:
    """w g_s of each sample, padding cut off."""
    model, _, tokens = case()
    return [one for row in tokens for one in naive_products(model, row[row != 0][None])]


def structures(group: str, unit: int) -> list[tuple[str, slice, int, float]]:
    """The parameters a unit owns part of: name, indices, dimension, share."""
    layer = f"model.layers.{int(group[1:3])}"
    if group.endswith("ffn_channel"):
        one = slice(unit, unit + 1)
        rows = [(f"{layer}.mlp.{name}_proj.weight", one, 0, 1.0) for name in ("gate", "up")]
        return [*rows, (f"{layer}.mlp.down_proj.weight", one, 1, 1.0)]
    own, shared = slice(unit * WIDTH, (unit + 1) * WIDTH), unit // SHARED
    kv = slice(shared * WIDTH, (shared + 1) * WIDTH)
    at = f"{layer}.self_attn"
    mine = [(f"{at}.q_proj.{kind}", own, 0, 1.0) for kind in ("weight", "bias")]
    mine.append((f"{at}.o_proj.weight", own, 1, 1.0))
    theirs = [(f"{at}.{name}_proj.{kind}", kv, 0, 1 / SHARED) for name in "kv" for kind in ("weight", "bias")]
    return mine + theirs


def cut(values: Tensor, indices: slice, dim: int) -> Tensor:
    return values[indices] if dim == 0 else values[:, indices]


def per_sample(group: str, unit: int, of: Callable[[Tensor], Tensor]) -> list[tuple[str, float]]:
    """Per structure: share times the mean over samples of `of`(w g_s on the structure)."""
    result = []
    for name, indices, dim, share in structures(group, unit):
        terms = [of(cut(product[name], indices, dim)).item() for product in products()]
        result.append((name, share * float(np.mean(terms))))
    return result


def fused(f: Tensor) -> Tensor:
    coarse = (f.sum() - f.sum() ** 2 / 2).abs()
    fine = sum((one - one**2 / 2).abs() for one in f.flatten())
    return coarse + fine


TAYLOR = {
    "taylor_first_per_sample": lambda f: f.abs().sum(),
    "taylor_second": lambda f: (f**2).sum(),
    "taylor_mix_per_sample": lambda f: (f - f**2 / 2).abs().sum(),
    "fusion": fused,
}


AGGREGATE = {
    "sum": lambda parts: sum(value for _, value in parts),
    "max": lambda parts: max(value for _, value in parts),
    "prod": lambda parts: np.prod([v for name, v in parts if "bias" not in name]),
    "last": lambda parts: next(v for name, v in parts if "o_proj" in name or "down_proj" in name),
}


@pytest.mark.parametrize("aggregation", AGGREGATE)
@pytest.mark.parametrize("name", TAYLOR)
@pytest.mark.parametrize("group", ["L01.query_head", "L00.ffn_channel"])
def test_taylor_and_fusion_sample_by_sample(name: str, group: str, aggregation: str) -> None:
    scores = found(name, aggregation=aggregation)[group]
    for unit in (0, 1, 3):
        parts = per_sample(group, unit, TAYLOR[name])
        expected = AGGREGATE[aggregation](parts)
        if aggregation == "prod":  # the geometric mean, which ranks as the product
            expected = expected ** (1 / sum("bias" not in one for one, _ in parts))
        assert scores[unit] == pytest.approx(expected, rel=2e-3)


def test_the_mean_of_the_squares_is_not_the_square_of_the_mean() -> None:
    """The Fisher diagonal needs each sample's own gradient."""
    model, graph, tokens = case()
    twice = torch.cat([tokens[:1], tokens[:1]])
    needs = {"gradient_second"}
    one, same, both = (
        score(model, graph, ["taylor_second"], capture(model, graph, t, needs=needs), seed=0)["taylor_second"]
        for t in (tokens[:1], twice, tokens[::2])
    )
    assert np.allclose(one["L00.ffn_channel"], same["L00.ffn_channel"], rtol=1e-4)
    batch = tokens[::2]
    model.zero_grad()
    model(batch, labels=batch, use_cache=False).loss.backward()
    mlp = model.model.layers[0].mlp
    whole = sum((p * p.grad).square().sum(dim=1 - d) for p, d in (
        (mlp.gate_proj.weight, 0), (mlp.up_proj.weight, 0), (mlp.down_proj.weight, 1)
    ))  # fmt: skip
    model.zero_grad()
    assert not np.allclose(both["L00.ffn_channel"], whole.detach().numpy(), rtol=0.1)
