"""Captured statistics and divergences against their definitions, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from core.capture import capture, similarity
from core.divergence import js_distances
from core.errors import DataError, NotPrunableError, StopRequested, UnknownNameError
from core.graph.records import Graph
from core.surgery import operate
from tests.handmade import graph_of, ids, tiny

NEEDS = {"weight_gradient"}


def naive_weight_gradient(model: PreTrainedModel, batches: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Mean over batches of |w g_b| with plain autograd and the model's own loss."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for batch in batches:
        model.zero_grad()
        model(batch, labels=batch, use_cache=False).loss.backward()
        for name, p in model.named_parameters():
            total[name] += (p.detach() * p.grad).abs() / len(batches)
    model.zero_grad()
    return total


def test_weight_gradient_equals_plain_autograd() -> None:
    model = tiny("qwen2")
    graph, tokens = graph_of(model), ids(model, batch=5)
    kinds = ("query_head", "ffn_channel", "residual_channel")
    found = capture(model, graph, tokens, needs=NEEDS, batch_size=2, kinds=kinds)
    expected = naive_weight_gradient(model, [tokens[:2], tokens[2:4], tokens[4:]])
    assert set(expected) == {name for name, _ in found.values["weight_gradient"]}
    for (name, dim), vector in found.values["weight_gradient"].items():
        others = [d for d in range(expected[name].dim()) if d != dim]
        reference = expected[name].sum(dim=others) if others else expected[name]
        assert torch.allclose(vector, reference, atol=1e-5, rtol=1e-4), (name, dim)
    assert (found.windows, found.tokens) == (5, 5 * 11)


def test_tied_embeddings_get_the_sum_of_both_uses() -> None:
    model = tiny(tie_word_embeddings=True)
    graph, tokens = graph_of(model), ids(model)
    found = capture(model, graph, tokens, needs=NEEDS, kinds=("residual_channel",))
    expected = naive_weight_gradient(model, [tokens])["model.embed_tokens.weight"].sum(dim=0)
    got = found.values["weight_gradient"]["model.embed_tokens.weight", 1]
    assert torch.allclose(got, expected, atol=1e-5, rtol=1e-4)


def test_the_model_is_left_as_it_was() -> None:
    model = tiny().train()
    graph, tokens = graph_of(model), ids(model)
    model.lm_head.weight.requires_grad_(False)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    state = {name: p.clone() for name, p in model.state_dict().items()}
    capture(model, graph, tokens, needs=NEEDS)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before
    assert all(p.grad is None for p in model.parameters()) and model.training
    assert all(torch.equal(state[name], p) for name, p in model.state_dict().items())
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_only_parameters_in_scope_are_looked_at_and_gradients_do_not_pile_up() -> None:
    model = tiny()
    graph, tokens = graph_of(model), ids(model)
    alive: list[int] = []

    def count(_: torch.nn.Module, args: object, out: object) -> None:
        alive.append(sum(p.grad is not None for p in model.parameters()))

    model.model.register_forward_hook(count)
    found = capture(model, graph, tokens, needs=NEEDS, batch_size=1, kinds=("ffn_channel",))
    assert {name.split(".")[3] for name, _ in found.values["weight_gradient"]} == {"mlp"}
    assert alive == [0, 0]


def test_special_tokens_are_not_predicted() -> None:
    model = tiny()
    graph, tokens = graph_of(model), ids(model, batch=2, length=10)
    padded = torch.cat([tokens, torch.zeros(2, 4, dtype=torch.long)], dim=1)
    plain, longer = (capture(model, graph, one, needs=NEEDS) for one in (tokens, padded))
    assert plain.tokens == longer.tokens == 18
    assert plain.loss == pytest.approx(longer.loss, rel=1e-5)
    for key, vector in plain.values["weight_gradient"].items():
        assert torch.allclose(vector, longer.values["weight_gradient"][key], atol=1e-5, rtol=1e-3)


def test_progress_is_told_and_may_stop_the_pass() -> None:
    model = tiny()
    graph, tokens = graph_of(model), ids(model, batch=5)
    told: list[tuple[int, int]] = []
    capture(model, graph, tokens, needs=NEEDS, batch_size=2, on_progress=lambda *at: told.append(at))
    assert told == [(2, 5), (4, 5), (5, 5)]

    def stop(done: int, total: int) -> None:
        raise StopRequested("stop")

    with pytest.raises(StopRequested):
        capture(model, graph, tokens, needs=NEEDS, on_progress=stop)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_bad_requests_are_explained() -> None:
    model = tiny()
    graph = graph_of(model)
    with pytest.raises(UnknownNameError, match="weight_gradient"):
        capture(model, graph, ids(model), needs={"moon_phase"})
    with pytest.raises(DataError, match="special tokens"):
        capture(model, graph, torch.zeros(2, 8, dtype=torch.long), needs=NEEDS)
    with pytest.raises(DataError, match="special tokens"):
        similarity(model, graph, torch.zeros(2, 8, dtype=torch.long), text="t")


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


def test_the_same_and_disjoint_attention_are_the_ends_of_the_scale() -> None:
    eye = torch.eye(4)
    heads = torch.stack([eye, eye, eye.flip(0)])[None]  # (1, 3, 4, 4)
    d = js_distances(heads, torch.ones(1, 4, dtype=torch.bool)) / 4
    assert d[0, 1] == 0 and float(d[0, 2]) == pytest.approx(np.sqrt(np.log(2)), abs=1e-6)


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
    graph: Graph = graph_of(model)
    small = operate(model, graph, {"L00.query_head": (1,)})
    left = [a if a.layer else type(a)(0, a.module, 3, 2, 8, 8) for a in graph.attentions]
    found = similarity(small, type(graph)(**{**vars(graph), "attentions": tuple(left)}), ids(model), text="t")
    assert np.isnan(found.divergence[0, 3]).all() and np.isfinite(found.divergence[0, :3, :3]).all()
    assert np.isfinite(found.divergence[1]).all()


def test_a_model_without_attention_is_refused() -> None:
    model = tiny()
    graph = graph_of(model)
    with pytest.raises(NotPrunableError, match="no attention"):
        similarity(model, type(graph)(**{**vars(graph), "attentions": ()}), ids(model), text="t")
