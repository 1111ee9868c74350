"""The check after a cut: trained models pass whatever runs through their channels, faults do not."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.errors import NotPrunableError
from core.graph.records import Graph
from core.results.agreement import Agreement
from core.surgery import modeling_pruned, rewrite
from core.surgery import operate as surgery
from core.surgery.norms import is_norm
from core.surgery.operate import operate
from core.surgery.precision import in_float64
from tests.graph.families import build, graph_of, model_of
from tests.handmade import ids, logits
from tests.surgery.test_contract import cases

FAMILIES = ("llama", "gpt2", "phi3", "gemma2", "mixtral", "blocks", "falcon_grouped")
KINDS = ("query_head", "kv_group", "ffn_channel", "residual_channel")
Removed = dict[str, tuple[int, ...]]


def outlying(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model of this family with 30,000 in one residual channel at every other token, as trained ones have.

    The channel is large from the embedding on, and every matrix that reads it has small weights there.
    """
    model, graph = build(family, attention=None), graph_of(family)
    (stream,) = graph.of_kind("residual_channel")
    with torch.no_grad():
        for member in stream.members:
            index = torch.from_numpy(member.index()[7].copy())
            part = model.get_parameter(member.parameter).movedim(member.dim, 0)
            if member.role == "embedding":
                part[index, ::2] = 3e4
            elif member.role == "layer2":
                part[index] *= 1e-3
    return model.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_residual_channel_of_thirty_thousand_is_no_fault(family: str, dtype: torch.dtype) -> None:
    model, graph = outlying(family, dtype), graph_of(family)
    for name, removed in cases(family).items():
        agreements: list[Agreement] = []
        operate(copy.deepcopy(model), graph, removed, on_checked=agreements.extend)
        places = [agreement.where for agreement in agreements]
        assert places == [*graph.layer_modules, "the output layer"], name
        assert all(agreement.difference <= agreement.allowed / 2 for agreement in agreements), name


def parts_of(graph: Graph, removed: Removed, model: PreTrainedModel) -> list[str]:
    """One parameter in each role that a cut touches, matrices and norms."""
    (chosen,) = {group.kind for group in map(graph.group, removed)}
    group = [group for group in graph.of_kind(chosen) if removed.get(group.id)][-1]
    roles: dict[str, str] = {}
    for member in group.members:
        owner = model.get_submodule(member.parameter.rpartition(".")[0])
        if member.parameter.endswith("weight") and (member.role != "vector" or is_norm(owner)):
            roles.setdefault(member.role, member.parameter)
    return list(roles.values())


def shifted(left: Tensor, dims: dict[int, object]) -> Tensor:
    """The right number of slices, each its neighbour's."""
    return left.roll(1, max(dims))


def reversed_(left: Tensor, dims: dict[int, object]) -> Tensor:
    """The right slices in the wrong order."""
    return left.flip(max(dims))


@pytest.mark.parametrize("fault", [shifted, reversed_])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_slices_and_orders_are_found(
    family: str, kind: str, fault: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, graph = outlying(family), graph_of(family)
    removed = {group.id: tuple(range(max(1, group.units // 3))) for group in graph.of_kind(kind)}
    right = surgery._left
    for name in parts_of(graph, removed, model):
        damaged = copy.deepcopy(model)

        def wrong(
            p: nn.Parameter, dims: dict[int, object], at: object = damaged.get_parameter(name)
        ) -> Tensor:
            return fault(right(p, dims), dims) if p is at else right(p, dims)

        monkeypatch.setattr(surgery, "_left", wrong)
        with pytest.raises(NotPrunableError, match="does not do with these units cut"):
            operate(damaged, graph, removed)


@pytest.mark.parametrize(
    ("family", "step"), [("llama", "shrink_rms"), ("gemma2", "shrink_rms"), ("nanochat", "shrink_plain")]
)
def test_a_forgotten_scaling_is_found(family: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_resize(module: nn.Module, dense: int, left: int) -> None:
        for name, value in list(vars(module).items()):
            if value == (dense,):
                setattr(module, name, (left,))

    monkeypatch.setattr(surgery, step, only_resize)
    with pytest.raises(NotPrunableError, match="does not do with these units cut"):
        operate(outlying(family), graph_of(family), {"residual_channel": (3,)})


def test_heads_that_read_other_keys_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = modeling_pruned.expand_after_cache
    monkeypatch.setattr(
        rewrite, "expand_after_cache", lambda module, index: right(module, index[1:] + index[:1])
    )
    with pytest.raises(NotPrunableError, match=r"model\.layers\.1 does not do"):
        operate(outlying("llama"), graph_of("llama"), {"L01.query_head": (0,)})


def test_the_layer_that_has_the_fault_is_named_with_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, right, agreements = outlying("llama"), surgery._left, list[Agreement]()
    matrix = model.get_parameter("model.layers.0.mlp.down_proj.weight")
    monkeypatch.setattr(
        surgery, "_left", lambda p, dims: right(p, dims).roll(1, 1) if p is matrix else right(p, dims)
    )
    with pytest.raises(NotPrunableError, match=r"model\.layers\.0 does not do .* off by .* rounding"):
        operate(model, graph_of("llama"), {"L00.ffn_channel": (0,)}, on_checked=agreements.extend)
    assert [agreement.holds for agreement in agreements] == [False, True, True]


def test_numbers_that_are_not_finite_are_no_fault_of_the_cut() -> None:
    model = copy.deepcopy(model_of("llama"))
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.down_proj.weight")[0, 0] = torch.nan
    with pytest.raises(NotPrunableError, match=r"model\.layers\.1 gives numbers that are not finite"):
        operate(model, graph_of("llama"), {"L00.ffn_channel": (0,)})


@pytest.mark.parametrize("family", ["llama_tied", "mixtral", "gpt2"])
def test_float64_is_lent_and_given_back(family: str) -> None:
    model = copy.deepcopy(model_of(family, None)).bfloat16()
    tokens, layers, how = ids(model), graph_of(family).layer_modules, model.get_experts_implementation()
    before = {name: (p.dtype, p.data_ptr()) for name, p in model.named_parameters()}
    with in_float64(model, layers):
        wide = logits(model, tokens)
    with pytest.raises(RuntimeError), in_float64(model, layers):
        model(inputs_embeds=torch.zeros(1, 3, 5))
    whole = copy.deepcopy(model).double()
    with in_float64(whole, layers):  # for the experts only
        expected = logits(whole, tokens)
    assert wide.dtype == torch.float64
    assert (wide - expected).abs().max() < 1e-5 * wide.abs().max()
    assert {name: (p.dtype, p.data_ptr()) for name, p in model.named_parameters()} == before
    assert model.get_experts_implementation() == how
