"""LLM-Pruner's Eq. 3 to 5 in double precision, written from the paper, on a grouped-query model."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from core.capture.statistics import capture
from core.criteria.scoring import score
from tests.criteria.case import HEADS, SHARED, WIDTH, case, found
from tests.handmade import tiny

GROUPS = ("L00.query_head", "L01.query_head", "L01.kv_group", "L00.ffn_channel")
Gradients = dict[str, Tensor]


@cache
def gradients() -> tuple[Gradients, list[Gradients]]:
    """dL(D)/dW, with L(D) the mean of the samples' losses, by one backward; and dL(D_j)/dW of each sample."""
    model, _, tokens = case()
    exact = copy.deepcopy(model).double()
    own = [_gradient(exact, [row]) for row in tokens]
    return _gradient(exact, list(tokens)), own


def _gradient(model: torch.nn.Module, rows: list[Tensor]) -> Gradients:
    model.zero_grad()
    losses = []
    for row in rows:
        text = row[row != 0]  # padding cut off
        logits = model(text[None], use_cache=False).logits[0, :-1]
        losses.append(-logits.log_softmax(dim=-1)[torch.arange(len(text) - 1), text[1:]].mean())
    torch.stack(losses).mean().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def slices(group: str, unit: int) -> list[tuple[str, int, range, float]]:
    """What goes with a unit: parameter, dimension, indices, and the share of it that counts."""
    layer = f"model.layers.{int(group[1:3])}."
    if group.endswith("ffn_channel"):
        own = range(unit, unit + 1)
        return [(f"{layer}mlp.{n}_proj.weight", d, own, 1) for n, d in (("gate", 0), ("up", 0), ("down", 1))]
    queries = SHARED if group.endswith("kv_group") else 1
    mine = range(unit * queries * WIDTH, (unit + 1) * queries * WIDTH)
    head = unit if queries > 1 else unit // SHARED
    shared = range(head * WIDTH, (head + 1) * WIDTH)
    parts: list[tuple[str, int, range, float]] = [(f"{layer}self_attn.o_proj.weight", 1, mine, 1)]
    for kind in ("weight", "bias"):
        parts.append((f"{layer}self_attn.q_proj.{kind}", 0, mine, 1))
        parts += [(f"{layer}self_attn.{n}_proj.{kind}", 0, shared, queries / SHARED) for n in "kv"]
    return parts


def weight(name: str) -> Tensor:
    return case()[0].get_parameter(name).detach().double()


def rows(values: Tensor, dim: int, indices: range) -> Tensor:
    """Those of a parameter's numbers that belong to a unit, a row per neuron."""
    return values.movedim(dim, 0)[list(indices)].reshape(len(indices), -1)


def eq_5(group: str, unit: int, *, first: float, second: float) -> float:
    """Sum over k of |first dL(D)/dW_k W_k - second sum_j (dL(D_j)/dW_k W_k)^2 / N|, over all structures."""
    whole, own = gradients()
    total = 0.0
    for name, dim, indices, share in slices(group, unit):
        w = weight(name)
        squares = torch.stack([(each[name] * w) ** 2 for each in own]).mean(dim=0)
        importance = (first * whole[name] * w - second * squares).abs()
        total += share * rows(importance, dim, indices).sum().item()
    return total


def eq_3(group: str, unit: int, *, neurons: bool) -> float:
    """|dL(D)/dW' W| of each structure, or as released of each neuron in it, added up."""
    total = 0.0
    for name, dim, indices, share in slices(group, unit):
        moved = rows(gradients()[0][name] * weight(name), dim, indices).sum(dim=1)
        total += share * (moved.abs().sum() if neurons else moved.sum().abs()).item()
    return total


PAPER = {
    "taylor_first": lambda *unit: eq_5(*unit, first=1, second=0),
    "taylor_second": lambda *unit: eq_5(*unit, first=0, second=1),
    "taylor_mix": lambda *unit: eq_5(*unit, first=1, second=0.5),
    "taylor_vector": lambda *unit: eq_3(*unit, neurons=True),
    "taylor_vector structure": lambda *unit: eq_3(*unit, neurons=False),
}


@cache
def exact_scores(name: str) -> dict[str, np.ndarray]:
    """Scores of the model in double precision: what differs from the paper is no rounding."""
    model, graph, tokens = case()
    exact = copy.deepcopy(model).double()
    criterion, _, vector = name.partition(" ")
    needs = {f"gradient_{n}" for n in ("first", "second", "mix", "sum")}
    statistics = capture(exact, graph, tokens, needs=needs)
    options = {"vector": vector} if vector else {}
    return score(exact, graph, [criterion], statistics, seed=0, options=options)[criterion]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", PAPER)
def test_the_papers_formula(name: str, group: str) -> None:
    expected = [PAPER[name](group, unit) for unit in range(len(exact_scores(name)[group]))]
    assert exact_scores(name)[group] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["taylor_first", "taylor_mix", "taylor_vector"])
def test_in_single_precision_only_rounding_differs(name: str) -> None:
    for group in GROUPS:
        assert np.allclose(found(name)[group], exact_scores(name)[group], rtol=1e-4)


def test_what_the_variants_add_up_is_another_thing() -> None:
    """Samples cancel in the paper's formula, and do not where absolute values are taken first."""
    for name in ("taylor_first", "taylor_mix"):
        for group in GROUPS:
            assert (found(f"{name}_per_sample")[group] > 1.05 * found(name)[group]).all()


def test_a_head_by_neurons_is_worth_at_least_as_much_as_by_its_slice() -> None:
    heads = "L00.query_head"
    whole = found("taylor_vector", vector="structure")[heads]
    assert len(whole) == HEADS and (whole < found("taylor_vector")[heads]).all()
    channels = "L00.ffn_channel"
    assert np.allclose(found("taylor_vector", vector="structure")[channels], found("taylor_vector")[channels])


@pytest.mark.parametrize("size", [1, 2, 3, None])
def test_scores_do_not_depend_on_how_many_windows_go_through_at_once(size: int | None) -> None:
    _, graph, tokens = case()
    model = tiny("qwen2").double()
    statistics = capture(model, graph, tokens, needs={"gradient_first"}, batch_size=size)
    scores = score(model, graph, ["taylor_first"], statistics, seed=0)["taylor_first"]
    for group, expected in exact_scores("taylor_first").items():
        assert np.allclose(scores[group], expected, rtol=1e-5, atol=0)
