"""The weights that a training leaves as they are, sharded: every process holds its share of each layer.

This is PyTorch's FSDP2. A layer's weights are gathered before it runs and dropped after it, so whatever one
process runs, all have to. The first measures by itself: then the others send two tokens through the same
model, for the gathering alone. What is trained is not sharded: it is little, and averaged as ever (`team`).

`fully_shard` is called here, and not by accelerate, which would shard what is trained, too, and never gives
a model back as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._composable_state import _module_state_mapping
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from core.devices.lending import halt
from core.graph.hooks import evaluating
from core.recover.team import LostTouchError, Team

#: What the first tells the others: that all go on together, that they gather, or which model it runs.
_TOGETHER, _GATHER, _FIRST = 0, 1, 2
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Frozen:
    """A model whose weights stay as they are.

    Attributes:
        called: the module that is called; layers: of it, each is gathered by itself.
        apart: of its parameters, those that are not sharded, e.g. what is trained.
    """

    called: nn.Module
    layers: Sequence[nn.Module]
    apart: Collection[nn.Parameter] = ()


class Shards:
    """Models whose weights are sharded over a team, from now on; none for one process alone.

    Args:
        models: the first gets its weights back in the end.
        device: where this process trains, wherever the weights are by now.
    """

    def __init__(self, team: Team, models: Sequence[Frozen] = (), device: torch.device = _CPU) -> None:
        device = torch.empty(0, device=device).device  # with a number, as those of weights
        self._team, self._alone, self.device = team, team.leads, device
        self._models: list[_Sharded] = []
        if team.size > 1 and models:
            mesh = DeviceMesh(device.type, list(range(team.size)))
            keeps = [team.leads, *[False] * len(models)]
            self._models = [_Sharded(*each, mesh, device) for each in zip(models, keeps, strict=False)]
        if team.leads:
            for number, model in enumerate(self._models, _FIRST):
                model.called.register_forward_pre_hook(partial(self._announce, number), prepend=True)

    def __bool__(self) -> bool:
        """Whether anything is sharded."""
        return bool(self._models)

    def held(self) -> tuple[int, int]:
        """Bytes of the weights that this process holds, and of all of them."""
        shards = [shard for model in self._models for shard in model.shards()]
        sizes = [shard.numel() * shard.element_size() for shard in shards]
        local = [shard.to_local() for shard in shards]
        return sum(one.numel() * one.element_size() for one in local), sum(sizes)

    def meet(self) -> None:
        """Go on together, after what the first has run by itself. Raises LostTouchError."""
        self._until(_TOGETHER)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let all processes run the models alike within the block. Raises LostTouchError."""
        self.meet()
        self._alone = False
        try:
            yield
        finally:
            self._alone = self._team.leads

    @contextmanager
    def in_touch(self) -> Iterator[None]:
        """Raise LostTouchError where weights cannot be gathered because another process is gone."""
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, dist.DistError) or "gloo" in str(error):
                raise LostTouchError(self._team.why_lost()) from error
            raise  # of a model that cannot go on, or of memory

    def gather(self) -> None:
        """Give the first process the weights of the first model, bit for bit. Raises LostTouchError."""
        if self:
            self._until(_GATHER)
            with self.in_touch():
                self._models[0].gather(keep=self._team.leads)
            self._models.clear()

    def _until(self, word: int) -> None:
        """Come to the same point: the first says so, the others run along what it ran before."""
        if not self:
            return
        if self._team.leads:
            self._team.spread(torch.tensor([word]))
            return
        while (told := int(self._team.spread(torch.tensor([word])))) != word:
            self._run_along(self._models[told - _FIRST].called)

    def _announce(self, number: int, *_: Any) -> None:
        """A forward pre-hook of the first process: the others are to run this model, too."""
        if self._alone:
            self._team.spread(torch.tensor([number]))

    @torch.no_grad()
    def _run_along(self, model: nn.Module) -> None:
        with evaluating(model):
            model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=self.device), use_cache=False)


class _Sharded:
    """A model that is sharded until `gather`.

    Args:
        keeps: whether weights that rest elsewhere stay there; otherwise they are dropped, too.
    """

    def __init__(self, model: Frozen, keeps: bool, mesh: DeviceMesh, device: torch.device) -> None:
        self.called, modules = model.called, list(model.called.modules())
        lent, apart = halt(model.called), set(model.apart)
        self._apart = {value: value.device for value in apart}
        self._whole = [
            (module, name, value)
            for module in modules
            for name, value in module._parameters.items()
            if value is not None and value not in apart
        ]
        self._resting = {
            value for module, _, value in self._whole if keeps and (module in lent or value.device != device)
        }
        self._before = [_Before(module) for module in modules]
        for part in (*model.layers, model.called):
            self._shard(part, mesh, apart)
        for value in apart:
            value.data = value.data.to(device)
        for before in self._before:
            before.note_added()

    def _shard(self, part: nn.Module, mesh: DeviceMesh, apart: set[nn.Parameter]) -> None:
        """Shard what is not sharded yet, and drop the whole of it, unless it rests elsewhere."""
        whole = {
            value: value.data.contiguous()  # others FSDP2 refuses
            for value in part.parameters()
            if value not in apart and not isinstance(value, DTensor)
        }
        for value, data in whole.items():
            value.data = data
        fully_shard(part, mesh=mesh, reshard_after_forward=True, ignored_params=apart)
        for value, data in whole.items():
            value.data = data if value in self._resting else data.new_empty(0)

    def shards(self) -> list[DTensor]:
        """The shards that this process holds, each once."""
        return [value for value in self.called.parameters() if isinstance(value, DTensor)]

    def gather(self, keep: bool) -> None:
        """Let the model be what it was, with its weights where they were; without any if not to `keep` them.

        Weights that rested elsewhere have stayed there, and are gathered only because the processes do not
        know that of each other.
        """
        seen = set[nn.Parameter]()
        for module, name, value in self._whole:
            shard = module._parameters[name]
            module._parameters[name] = value
            if shard is None or value in seen:
                continue
            seen.add(value)
            whole = whole_of(shard.detach())
            if keep and value not in self._resting:
                value.data = whole.clone()  # it may be a view of what was padded to equal shares
        for before in self._before:
            before.restore()
        for value, place in self._apart.items():
            value.data = value.data.to(place)
        halt(self.called, False)


class _Before:
    """What a module was before it was sharded."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._type = module, type(module)
        self._attributes, self._added = set(vars(module)), set[str]()
        self._hooks = {name: set(held) for name, held in vars(module).items() if name.endswith("_hooks")}

    def note_added(self) -> None:
        """Take note of the attributes that sharding added."""
        self._added = set(vars(self._module)) - self._attributes

    def restore(self) -> None:
        """Take off again what sharding added, for which torch has no function."""
        held = vars(self._module)
        for name in self._added:
            held.pop(name, None)
        for name, keys in self._hooks.items():
            for key in set(held[name]) - keys:
                del held[name][key]
        self._module.__class__ = self._type
        _module_state_mapping.pop(self._module, None)


def whole_of(weight: Tensor) -> Tensor:
    """A weight as a whole, whether it is sharded or not; if it is, all processes ask for it at once."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight
