"""Where in a model a parameter lies: the module that owns it, and those that make and read a unit."""

from __future__ import annotations

from torch import nn
from transformers.pytorch_utils import Conv1D

from core.graph.records import Graph, Member


def owner_of(model: nn.Module, parameter: str) -> tuple[nn.Module, str]:
    """The module that owns a parameter, and the attribute it is kept in."""
    path, _, attribute = parameter.rpartition(".")
    return model.get_submodule(path), attribute


def reads_last_dim(owner: nn.Module, attribute: str, dim: int) -> bool:
    """Whether `dim` of this weight is multiplied with the last dimension of the module's input."""
    owner = getattr(owner, "base_layer", owner)  # an adapter stands around the matrix it adds to
    if attribute != "weight":
        return False
    return (isinstance(owner, nn.Linear) and dim == 1) or (isinstance(owner, Conv1D) and dim == 0)


def writes_last_dim(owner: nn.Module, attribute: str, dim: int) -> bool:
    """Whether `dim` of this weight is the last dimension of the module's output."""
    owner = getattr(owner, "base_layer", owner)
    if attribute != "weight":
        return False
    sideways = isinstance(owner, (nn.Embedding, Conv1D))
    return (isinstance(owner, nn.Linear) and dim == 0) or (sideways and dim == 1)


def reader_of(model: nn.Module, graph: Graph, member: Member) -> nn.Module | None:
    """The module whose input runs along the member's units, or None where no module's input does."""
    name = member.parameter
    if member.role == "embedding":  # a tied output layer reads the channels that the embedding writes
        alias = next((alias for alias, first in graph.tied.items() if first == name), None)
        return owner_of(model, alias)[0] if alias else None
    owner, attribute = owner_of(model, name)
    if member.role != "layer2" or not reads_last_dim(owner, attribute, member.dim):
        return None
    return owner


def maker_of(model: nn.Module, member: Member) -> nn.Module | None:
    """The module whose output runs along the member's units, or None where no module's output does."""
    owner, attribute = owner_of(model, member.parameter)
    makes = (isinstance(owner, nn.Linear) and member.dim == 0) or (
        isinstance(owner, Conv1D) and member.dim == 1
    )
    return owner if member.role == "layer1" and attribute == "weight" and makes else None


def tied_names(model: nn.Module) -> dict[str, str]:
    """Every further name of a parameter -> its first name."""
    first: dict[int, str] = {}
    names = model.named_parameters(remove_duplicate=False)
    firsts = {name: first.setdefault(id(parameter), name) for name, parameter in names}
    return {name: own for name, own in firsts.items() if name != own}
