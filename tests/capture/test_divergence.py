"""Distances between heads against their definition, written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.capture.divergence import js_distances, similarity
from core.errors import NotPrunableError
from core.surgery.operate import operate
from tests.handmade import graph_of, ids, tiny


def naive_distance(p: np.ndarray, q: np.ndarray) -> float:
    """Eq. 1: the square root of the Jensen-Shannon divergence, by its two Kullback-Leibler terms."""
    m = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p / m), 0.0) + np.where(q > 0, q * np.log(q / m), 0.0)
    return float(np.sqrt(max(terms.sum() / 2, 0.0)))


def naive_distances(attention: np.ndarray, counted: np.ndarray) -> np.ndarray:
    heads = attention.shape[1]
    total = np.zeros((heads, heads))
    for b, t in zip(*np.nonzero(counted), strict=True):
        for i in range(heads):
            for j in range(heads):
                total[i, j] += naive_distance(attention[b, i, t], attention[b, j, t])
    return total


def test_distances_equal_the_definition() -> None:
    torch.manual_seed(0)
    future = torch.ones(6, 6, dtype=torch.bool).triu(1)
    attention = (torch.randn(2, 5, 6, 6, dtype=torch.float64) * 3).masked_fill(future, -torch.inf).softmax(-1)
    counted = torch.rand(2, 6) > 0.3
    got = js_distances(attention, counted).numpy() / int(counted.sum())
    expected = naive_distances(attention.numpy(), counted.numpy()) / int(counted.sum())
    off_diagonal = ~np.eye(5, dtype=bool)
    assert np.allclose(got[off_diagonal], expected[off_diagonal], atol=1e-5)
    assert (np.diag(got) == 0).all() and np.allclose(got, got.T)


def test_heads_that_are_the_same_are_so_exactly() -> None:
    one = torch.rand(3, 1, 40, 40).softmax(dim=-1).tril()
    assert js_distances(one.expand(-1, 3, -1, -1), torch.ones(3, 40, dtype=torch.bool)).abs().max() == 0


def test_the_same_and_disjoint_attention_are_the_ends_of_the_scale() -> None:
    eye = torch.eye(4)
    heads = torch.stack([eye, eye, eye.flip(0)])[None]  # (1, 3, 4, 4)
    d = js_distances(heads, torch.ones(1, 4, dtype=torch.bool)) / 4
    assert d[0, 1] == 0
    assert float(d[0, 2]) == pytest.approx(np.sqrt(np.log(2)), abs=1e-6)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_similarity_reads_the_models_own_attention(implementation: str) -> None:
    model = tiny()
    model.set_attn_implementation(implementation)
    graph, tokens = graph_of(model), ids(model, batch=3)
    tokens[0, 3] = 2  # an end token: its query position does not count
    told: list[tuple[int, int]] = []
    found = similarity(
        model, graph, tokens, text="made up", batch_size=2, on_progress=lambda *a: told.append(a)
    )
    assert model.config._attn_implementation == implementation and told == [(2, 3), (3, 3)]
    assert (found.layers, found.tokens, found.text) == ([0, 1], 35, "made up")
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(tokens, output_attentions=True, use_cache=False).attentions
    for layer, attention in enumerate(attentions):
        expected = naive_distances(attention.double().numpy(), (tokens != 2).numpy()) / 35
        np.fill_diagonal(expected, 0)
        assert np.allclose(found.divergence[layer], expected, atol=1e-5)
    assert found.divergence.dtype == np.float32


def test_layers_with_fewer_heads_are_filled_up() -> None:
    model = tiny()
    graph = graph_of(model)
    small = operate(model, graph, {"L00.query_head": (1,)})
    left = [a if a.layer else type(a)(0, a.module, 3, 2, 8, 8) for a in graph.attentions]
    found = similarity(small, replace(graph, attentions=tuple(left)), ids(model), text="t")
    assert np.isnan(found.divergence[0, 3]).all() and np.isfinite(found.divergence[0, :3, :3]).all()
    assert np.isfinite(found.divergence[1]).all()


def test_a_model_without_attention_is_refused() -> None:
    model = tiny()
    graph = graph_of(model)
    with pytest.raises(NotPrunableError, match="no attention"):
        similarity(model, replace(graph, attentions=()), ids(model), text="t")
