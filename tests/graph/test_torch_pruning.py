"""Multi-head Llama has the groups that Torch-Pruning finds, element by element.

Torch-Pruning follows autograd's graph of a real forward pass: the two share nothing but the model. It is no
oracle for grouped-query attention, where it does not come to an end.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_pruning as tp
from torch import nn

from core.graph.records import Graph, Group
from tests.graph.families import build, graph_of

#: (parameter, dimension) -> the indices that go.
Slices = dict[tuple[str, int], set[int]]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build("llama_mha").requires_grad_(True)


@pytest.fixture(scope="module")
def theirs(model: nn.Module) -> Any:
    ids = torch.zeros(1, 7, dtype=torch.long)
    norms = [(p, 0) for name, p in model.named_parameters() if "norm" in name]
    return tp.DependencyGraph().build_dependency(
        model, {"input_ids": ids, "use_cache": False}, None, None, norms
    )


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of("llama_mha")


def our_slices(group: Group, unit: int) -> Slices:
    found: Slices = {}
    for member in group.members:
        found.setdefault((member.parameter, member.dim), set()).update(member.index()[unit].tolist())
    return found


def their_slices(theirs: Any, model: nn.Module, root: str, rows: list[int]) -> Slices:
    """What Torch-Pruning takes along with these rows of a matrix."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: Slices = {}
    for dependency, indices in theirs.get_pruning_group(
        model.get_submodule(root), tp.prune_linear_out_channels, rows
    ):
        module, columns = dependency.target.module, theirs.is_in_channel_pruning_fn(dependency.handler)
        if isinstance(module, nn.Parameter):
            found.setdefault((names[id(module)], 0), set()).update(indices)
        elif isinstance(module, (nn.Linear, nn.Embedding)):
            dim = 1 if columns or isinstance(module, nn.Embedding) else 0
            found.setdefault((names[id(module.weight)], dim), set()).update(indices)
            if not columns and getattr(module, "bias", None) is not None:
                found.setdefault((names[id(module.bias)], 0), set()).update(indices)
    return found


@pytest.mark.parametrize(
    ("group_id", "root", "width"),
    [
        ("L00.ffn_channel", "model.layers.0.mlp.gate_proj", 1),
        ("L01.ffn_channel", "model.layers.1.mlp.up_proj", 1),
        ("L00.query_head", "model.layers.0.self_attn.q_proj", 8),
        ("L01.query_head", "model.layers.1.self_attn.v_proj", 8),
        ("residual_channel", "model.layers.1.mlp.down_proj", 1),
    ],
)
def test_every_unit_equals_torch_prunings(
    group_id: str, root: str, width: int, graph: Graph, model: nn.Module, theirs: Any
) -> None:
    group = graph.group(group_id)
    for unit in range(group.units):
        rows = list(range(unit * width, (unit + 1) * width))
        assert our_slices(group, unit) == their_slices(theirs, model, root, rows), f"{group_id} unit {unit}"
