"""What must hold for every family, checked against the model itself.

The oracle is autograd: once the columns that consume a unit are zero, exactly the parameters that belong to
the unit alone stop mattering. Their gradients become exactly 0, and no others do.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.graph.discover import discover
from core.graph.records import TYPES, Graph, Group, Member
from tests.graph.families import CONFIGS, PROMISED, graph_of, model_of

IDS = torch.randint(3, 61, (3, 11), generator=torch.Generator().manual_seed(1))


def unit_mask(model: PreTrainedModel, group: Group, unit: int, roles: tuple[str, ...]) -> dict[str, Tensor]:
    """Which elements of which parameters the unit owns in members of these roles."""
    masks: dict[str, Tensor] = {}
    for member in group.members:
        if member.role in roles:
            parameter = model.get_parameter(member.parameter)
            mask = masks.setdefault(member.parameter, torch.zeros_like(parameter, dtype=torch.bool))
            _mark(mask, member, unit)
    return masks


def _mark(mask: Tensor, member: Member, unit: int) -> None:
    part, dim = (mask, member.dim) if member.at is None else (mask[member.at], member.dim - 1)
    part.index_fill_(dim, torch.from_numpy(member.index()[unit].copy()), True)


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    """Gradients of random weights on the logits of random tokens; 0 where there is none."""
    model.zero_grad()
    logits = model(input_ids=IDS, use_cache=False).logits
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    (logits * weights).sum().backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}


def dead(model: PreTrainedModel) -> dict[str, Tensor]:
    """Elements whose gradient is exactly 0."""
    return {name: gradient == 0 for name, gradient in gradients(model).items()}


@contextmanager
def zeroed(model: PreTrainedModel, masks: dict[str, Tensor], to: float = 0.0) -> Iterator[None]:
    """The model with these elements set to 0, for a while."""
    kept = {name: model.get_parameter(name).detach().clone() for name in masks}
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name)[mask] = to
    yield
    with torch.no_grad():
        for name, values in kept.items():
            model.get_parameter(name).copy_(values)


@functools.cache
def dead_before(family: str) -> dict[str, Tensor]:
    """What does not matter to begin with: a key bias shifts all scores alike, its gradient is noise."""
    found = gradients(model_of(family))
    noise = 1e-6 * max(float(gradient.abs().max()) for gradient in found.values())
    return {name: gradient.abs() < noise for name, gradient in found.items()}


#: Their heads are found and refused: a norm module per head, a bias that all layers share, two attentions
#: whose difference is taken.
REFUSED = ("stablelm_norms", "cpmant", "diffllama")
#: Multi-query attention has one key-value group; without it the layer has no attention at all.
ONE_GROUP = ("falcon", "gpt_bigcode")
CASES = [
    (family, kind)
    for family in CONFIGS
    for kind in ("ffn_channel", "query_head", "kv_group")
    if family not in REFUSED or kind == "ffn_channel"
]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_exactly_the_members_of_a_unit_die_with_its_columns(family: str, kind: str) -> None:
    graph, model, before = graph_of(family), model_of(family), dead_before(family)
    groups = [g for g in graph.of_kind(kind) if g.prunable and g.units > 1]
    assert groups or family in ONE_GROUP
    for group in _few(groups):
        for unit in {0, group.units - 1}:
            with zeroed(model, unit_mask(model, group, unit, ("layer2",))):
                after = dead(model)
            expected = unit_mask(model, group, unit, ("layer1", "vector"))
            checked = 0
            for name, mask in after.items():
                newly = mask & ~before[name]
                wanted = expected.get(name, torch.zeros_like(mask)) & ~before[name]
                where = f"{group.id} unit {unit}: {name}"
                # Under a norm across the units their numbers still count in its statistics.
                exact = not group.norms
                assert (newly == wanted).all() if exact else not (newly & ~wanted).any(), where
                checked += int(newly.sum())
            assert checked >= group.members[0].width


def _few(groups: list[Group]) -> list[Group]:
    """The first and the last layer's groups of each shape: enough, and quick."""
    by_shape: dict[object, list[Group]] = defaultdict(list)
    for group in groups:
        by_shape[tuple((m.width, m.dim, m.at) for m in group.members), group.units].append(group)
    ends = [{same[0].id: same[0], same[-1].id: same[-1]} for same in by_shape.values()]
    return [group for end in ends for group in end.values()]


@pytest.mark.parametrize("family", CONFIGS)
def test_readers_of_a_residual_channel_die_with_its_writers(family: str) -> None:
    graph, model, before = graph_of(family), model_of(family), dead_before(family)
    group = graph.group("residual_channel")
    assert group.prunable and group.units == 48
    unit = 5
    writers = unit_mask(model, group, unit, ("embedding", "layer1", "vector"))
    # Some norms multiply with 1 + weight, and only those without a mean are 0 anyway.
    shifted = {name: writers.pop(name) for name in list(writers) if family == "nemotron" and "norm" in name}
    writers |= {name: mask for name, mask in shifted.items() if "bias" in name}
    weights = {name: mask for name, mask in shifted.items() if "weight" in name}
    with zeroed(model, writers), zeroed(model, weights, to=-1.0):
        after = dead(model)
    readers = unit_mask(model, group, unit, ("layer2",))
    members = unit_mask(model, group, unit, ("layer1", "layer2", "vector", "embedding"))
    # A norm that subtracts the mean makes a channel of zeros something else, and has no weight to silence it.
    revived = any(norm.statistic == "layer" and norm.module in group.plain_norms for norm in group.norms)
    for name, mask in after.items():
        newly = mask & ~before[name]
        assert revived or newly[readers[name] & ~before[name]].all() if name in readers else True, name
        assert not newly[~members.get(name, torch.zeros_like(mask))].any(), name


@pytest.mark.parametrize("family", CONFIGS)
def test_every_element_is_in_one_unit_of_a_kind(family: str) -> None:
    graph = graph_of(family)
    owners: dict[tuple[str, str, int, int | None], Tensor] = {}
    for group in graph.groups:
        if group.kind == "expert" or (group.kind in TYPES and not group.prunable):
            continue
        for member in group.members:
            size = graph.parameters[member.parameter].shape[member.dim]
            key = (group.kind, member.parameter, member.dim, member.at)
            count = owners.setdefault(key, torch.zeros(size, dtype=torch.int64))
            index = torch.from_numpy(member.index().copy())
            assert index.shape == (group.units, member.width)
            count.index_add_(0, index.ravel(), torch.ones(index.numel(), dtype=torch.int64))
    for (kind, name, dim, _), count in owners.items():
        assert count.max() == 1, (kind, name, dim)
        if kind in ("ffn_channel", "residual_channel"):
            assert count.min() == 1, (kind, name, dim)


@pytest.mark.parametrize("family", PROMISED)
def test_nothing_promised_is_refused(family: str) -> None:
    graph = graph_of(family)
    assert graph.not_prunable == ()
    layers = len(graph.layer_modules)
    assert len(graph.attentions) == layers
    for kind in ("query_head", "kv_group"):
        assert {g.layer for g in graph.of_kind(kind)} == set(range(layers))
    assert {g.layer for g in graph.of_kind("ffn_channel")} == set(range(layers))


def test_heads_with_modules_of_their_own_are_refused() -> None:
    graph = graph_of("stablelm_norms")
    for group in graph.of_kind("query_head", "kv_group"):
        assert not group.prunable and "of its own" in str(group.reason)
    assert [(g.units, g.prunable) for g in graph.of_kind("query_head")] == [(6, False)] * 2


# What is refused because layers share a bias reads differently when they are followed one by one.
@pytest.mark.parametrize("family", sorted(set(CONFIGS) - {"cpmant"}))
def test_layers_are_copied_exactly(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Following every layer gives what copying equal ones gives."""
    quick = graph_of(family)
    monkeypatch.setattr("core.graph.layers._copy", lambda *_: False)
    slow = discover(model_of(family), name=family)
    assert slow.groups == quick.groups or _as_sets(slow) == _as_sets(quick)
    assert slow.attentions == quick.attentions
    assert {(e.source, e.target, e.ops) for e in slow.edges} == {
        (e.source, e.target, e.ops) for e in quick.edges
    }


def _as_sets(graph: Graph) -> object:
    """Groups as sets of members; of what is refused only that it is."""
    return {
        g.id: (
            g.units,
            g.prunable,
            g.parent,
            g.parent_unit,
            set(g.members) if g.prunable else None,
            set(g.norms),
        )
        for g in graph.groups
    }
