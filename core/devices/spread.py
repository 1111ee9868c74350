"""Which weights rest where, for a model that is larger than its device: accelerate finds the map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import infer_auto_device_map
from torch import nn

from core.devices.lending import DISK, Spread
from core.devices.memory import free_memory
from core.errors import ModelError
from core.runs import company
from core.spec.model import memory_of

_GIB = 2**30
#: Of what is free, the share that weights may take: where weights are multiplied, activations need room, too.
_MAIN, _ELSEWHERE = 0.7, 0.9
#: Never full, as far as the map goes.
_NO_LIMIT = 2**60
_WORDS = {"cpu": "in memory", DISK: "on disk"}


def planned(model: nn.Module, device: torch.device, dtype: torch.dtype, max_memory: str) -> Spread:
    """Where the weights of a model should rest: on the device that computes as far as they fit.

    Args:
        model: its numbers are not looked at. max_memory: what devices may hold, as in `ModelSpec`.

    Raises:
        ModelError: a device is named that is not here, or what tokens are looked up in does not fit.
    """
    main = named(device)
    most = _most(main, max_memory)
    # accelerate numbers devices, and fills them in that order; the last is never full.
    numbered = {name: name if name == "cpu" else number for number, name in enumerate(most)}
    found = infer_auto_device_map(
        model,
        max_memory={**{numbered[name]: size for name, size in most.items()}, DISK: _NO_LIMIT},
        no_split_module_classes=list(getattr(model, "_no_split_modules", None) or ()),
        dtype=dtype,
    )
    names = {number: name for name, number in numbered.items()}
    places = {name: names.get(_of(name, found), DISK) for name, _ in model.named_parameters()}
    spread = Spread(main, {name: place for name, place in places.items() if place != main})
    first = next(name for name, _ in model.named_parameters())
    if main != "cpu" and spread.place(first) != main:
        raise ModelError(
            f"{main} may hold {_size(most[main])} of weights, too little for {first} and one layer "
            "beside it; give it more with --max-memory, or compute on the CPU: --device cpu."
        )
    return spread


def _of(parameter: str, places: Mapping[str, Any]) -> Any:
    """The place of the longest name that stands before a parameter's own, or is it."""
    fits = (name for name in places if not name or f"{parameter}.".startswith(f"{name}."))
    return places[max(fits, key=len)]


def named(device: torch.device) -> str:
    """A device by its name with a number where there are several: `cuda` is `cuda:0`."""
    return f"cuda:{device.index or 0}" if device.type == "cuda" else device.type


def check_devices(max_memory: str) -> None:
    """Raises ModelError for a device that is not here."""
    cards, here = torch.cuda.device_count(), ["cpu"]
    here += [f"cuda:{number}" for number in range(cards)]
    here += ["mps"] * torch.backends.mps.is_available()
    for name in memory_of(max_memory):
        if name not in here:
            raise ModelError(
                f"max_memory names {name}, which is not here; this machine has {', '.join(here)}."
            )


def _most(main: str, max_memory: str) -> dict[str, int]:
    """What each device may hold: first the one that computes, then other cards, last the memory."""
    check_devices(max_memory)
    told = memory_of(max_memory)
    count = torch.cuda.device_count() if main[:4] == "cuda" and company.size() == 1 else 0
    cards = [f"cuda:{number}" for number in range(count)]  # in a launch they are the others'
    every = dict.fromkeys([main, *cards, "cpu"])
    shares = {name: _MAIN if name == main else _ELSEWHERE for name in every}
    return {
        name: told.get(name, int(share * free_memory(torch.device(name)))) for name, share in shares.items()
    }


def words(model: nn.Module, spread: Spread) -> str:
    """How many layers rest where, and how much of the weights, in a sentence."""
    sizes = Counter[str]()
    for name, value in model.named_parameters():
        sizes[spread.place(name)] += value.numel() * value.element_size()
    layers = Counter(_place_of(model, spread, layer) for layer in _layers(model))
    there = [f"{count} {_where(place)}" for place, count in layers.items()]
    held = [f"{_size(size)} {_where(place)}" for place, size in sizes.items()]
    lent = f". {spread.main} computes, and is lent what rests elsewhere" if spread.places else ""
    return f"Weights: {', '.join(held)}; of {layers.total()} layers {', '.join(there)}{lent}"


def _size(size: int) -> str:
    return f"{size / _GIB:.2f} GiB" if size >= _GIB / 100 else f"{size / 2**20:.2f} MiB"


def _where(place: str) -> str:
    return _WORDS.get(place, f"on {place}")


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers of a model whose graph is not at hand."""
    return [model.get_submodule(name) for name in _layers(model)]


def _layers(model: nn.Module) -> list[str]:
    """The modules of the list that holds most parameters."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    largest = max(lists, key=lambda name: sum(p.numel() for p in lists[name].parameters()), default=None)
    return [] if largest is None else [f"{largest}.{name}" for name, _ in lists[largest].named_children()]


def _place_of(model: nn.Module, spread: Spread, layer: str) -> str:
    """Where a layer rests; where most of it does, if it is taken apart."""
    sizes = Counter[str]()
    for name, value in model.get_submodule(layer).named_parameters():
        sizes[spread.place(f"{layer}.{name}")] += value.numel()
    return max(sizes, key=lambda place: sizes[place], default=spread.main)
