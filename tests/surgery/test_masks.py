"""Masks by hooks: nothing at sparsity 0, the right units silent otherwise, gone without a trace."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from core.errors import NotPrunableError
from core.graph.records import Attention, Graph, Group, Member, Parameter
from core.surgery.masks import apply_masks, apply_soft_masks, masked
from core.surgery.norms import adds_one, shrink_rms, subtracts_mean
from tests.handmade import FAMILIES, graph_of, ids, logits, random_plan, tiny


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_removed_changes_no_bit(family: str) -> None:
    model = tiny(family)
    graph, tokens = graph_of(model), ids(model)
    before = logits(model, tokens)
    with masked(model, graph, {group.id: () for group in graph.groups}):
        assert torch.equal(logits(model, tokens), before)


def test_masks_equal_zeroed_columns_and_leave_no_trace() -> None:
    model = tiny()
    graph, tokens = graph_of(model), ids(model)
    before, state = logits(model, tokens), copy.deepcopy(model.state_dict())
    removed = {"L00.query_head": (1, 2), "L01.ffn_channel": (0, 5, 23)}
    reference = copy.deepcopy(model)
    with torch.no_grad():
        reference.model.layers[0].self_attn.o_proj.weight[:, 8:24] = 0
        reference.model.layers[1].mlp.down_proj.weight[:, [0, 5, 23]] = 0
    handle = apply_masks(model, graph, removed)
    assert torch.allclose(logits(model, tokens), logits(reference, tokens), atol=1e-6)
    assert not torch.allclose(logits(model, tokens), before, atol=1e-2)
    handle.remove()
    assert torch.equal(logits(model, tokens), before)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_a_key_value_unit_silences_its_query_heads() -> None:
    model = tiny()
    graph, tokens = graph_of(model), ids(model)
    with masked(model, graph, {"L00.kv_group": (1,)}):
        by_parent = logits(model, tokens)
    with masked(model, graph, {"L00.query_head": (2, 3)}):
        assert torch.equal(logits(model, tokens), by_parent)


def test_soft_masks_carry_gradients_and_are_read_anew() -> None:
    model = tiny()
    graph, tokens = graph_of(model), ids(model)
    mask = torch.full((24,), 0.5, requires_grad=True)
    handle = apply_soft_masks(model, graph, {"L00.ffn_channel": mask})
    half = model(tokens, use_cache=False).logits
    half.square().mean().backward()
    assert mask.grad is not None and bool((mask.grad != 0).all())
    with torch.no_grad():
        mask.zero_()
    silent = logits(model, tokens)
    handle.remove()
    with masked(model, graph, {"L00.ffn_channel": tuple(range(23))}):
        nearly = logits(model, tokens)
    assert not torch.allclose(half, silent, atol=1e-3) and not torch.equal(silent, nearly)


def test_a_layer_norm_counts_only_what_stays() -> None:
    torch.manual_seed(0)
    norm, keep = nn.LayerNorm(12), torch.tensor([0, 1, 4, 5, 6, 9, 11])
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-1, 1)
    model = nn.Sequential(norm)
    x = torch.randn(3, 5, 12)
    expected = nn.functional.layer_norm(x[..., keep], (7,), norm.weight[keep], norm.bias[keep], norm.eps)
    with masked(model, _one_vector_graph("0.weight", 12), {"residual_channel": (2, 3, 7, 8, 10)}):
        got = model(x)
    assert torch.allclose(got[..., keep], expected, atol=1e-5)
    assert got[..., [2, 3, 7, 8, 10]].abs().max() == 0


def test_a_root_mean_square_norm_can_be_shrunk_to_match_its_mask() -> None:
    torch.manual_seed(0)
    norm, keep = nn.RMSNorm(12, eps=1e-2), torch.tensor([0, 1, 4, 5, 6, 9, 11])
    assert not subtracts_mean(norm) and not adds_one(norm) and subtracts_mean(nn.LayerNorm(6))
    x = torch.randn(3, 5, 12)
    model = nn.Sequential(norm)
    with masked(model, _one_vector_graph("0.weight", 12), {"residual_channel": (2, 3, 7, 8, 10)}):
        expected = model(x)[..., keep]
    small = nn.RMSNorm(7, eps=1e-2)
    small.weight.data = norm.weight.data[keep].clone()
    shrink_rms(small, 12, 7)
    assert torch.allclose(small(x[..., keep]), expected, atol=1e-5)


def test_expert_stacks_are_masked_without_touching_the_weight() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Parameter(torch.randn(3, 4, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.einsum("bi,eoi->beo", x, self.down)

    model = nn.Sequential(Experts())
    weight = model[0].down.detach().clone()
    member = Member("0.down", 2, "layer2", 1, ((0, 6, 1),))
    graph = _graph(Group("g", "ffn_channel", 0, 6, (member,)), {"0.down": (3, 4, 6)})
    x = torch.randn(2, 6)
    with masked(model, graph, {"g": (1, 4)}):
        got = model(x)
    x[:, [1, 4]] = 0
    assert torch.allclose(got, model(x), atol=1e-6)
    assert torch.equal(model[0].down, weight) and "down" not in vars(model[0])


def test_a_plan_that_does_not_fit_is_refused() -> None:
    model = tiny()
    graph = graph_of(model)
    with pytest.raises(NotPrunableError, match="no group"):
        apply_masks(model, graph, {"L07.ffn_channel": (0,)})
    with pytest.raises(NotPrunableError, match="at least one must stay"):
        apply_masks(model, graph, {"L00.query_head": (0, 1, 2, 3)})


@pytest.mark.parametrize("seed", range(3))
def test_tied_embeddings_are_masked_too(seed: int) -> None:
    model = tiny(tie_word_embeddings=True)
    graph, tokens = graph_of(model), ids(model)
    removed = random_plan(graph, seed, ("residual_channel",))
    gone = list(removed["residual_channel"])
    with masked(model, graph, removed):
        expected = logits(model, tokens)
        with torch.no_grad():
            model.model.embed_tokens.weight[:, gone] = 0
        assert torch.allclose(logits(model, tokens), expected, atol=1e-5)


def _one_vector_graph(name: str, size: int) -> Graph:
    member = Member(name, 0, "vector", 1, ((0, size, 1),))
    return _graph(Group("residual_channel", "residual_channel", None, size, (member,)), {name: (size,)})


def _graph(group: Group, shapes: dict[str, tuple[int, ...]]) -> Graph:
    parameters = {name: Parameter(shape, 1.0, "", None) for name, shape in shapes.items()}
    return Graph("m", "f", False, 0.0, parameters, (group,), tuple[Attention, ...](), ())


def test_a_mask_may_be_a_function_that_is_asked_in_every_forward() -> None:
    model = tiny()
    graph, tokens = graph_of(model), ids(model)
    now: dict[str, torch.Tensor] = {}
    before = logits(model, tokens)
    for group in ("L00.ffn_channel", "L00.query_head", "residual_channel"):
        values = torch.rand(graph.group(group).units)
        with masked_by(model, graph, {group: values}):
            wanted = logits(model, tokens)
        with masked_by(model, graph, {group: partial(now.get, group)}):
            assert torch.equal(logits(model, tokens), before)  # None leaves every unit alone
            now[group] = values
            assert torch.equal(logits(model, tokens), wanted)
    assert torch.equal(logits(model, tokens), before)


def test_a_key_value_unit_hands_functions_down_too() -> None:
    model = tiny()
    graph, tokens = graph_of(model), ids(model)
    graph = replace(
        graph, groups=tuple(without_layer2(g) if g.kind == "kv_group" else g for g in graph.groups)
    )
    shared, own = torch.tensor([0.5, 0.25]), torch.rand(4)
    masks = {"L00.kv_group": shared, "L00.query_head": own}
    with masked_by(model, graph, masks) as changed:
        wanted = logits(changed, tokens)
    with masked_by(model, graph, {group: partial(masks.get, group) for group in masks}) as changed:
        assert torch.equal(logits(changed, tokens), wanted)


@contextmanager
def masked_by(model, graph, masks):  # type: ignore[no-untyped-def]
    handle = apply_soft_masks(model, graph, masks)
    yield model
    handle.remove()


def without_layer2(group: Group) -> Group:
    return replace(group, members=tuple(m for m in group.members if m.role != "layer2"))
