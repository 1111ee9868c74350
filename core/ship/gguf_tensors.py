"""The weights of a pruned model as llama.cpp wants them: names, order of rows, zeros, precision.

Rows of queries and keys are interleaved for `deci`, which turns neighbouring channels where transformers
turns channel i with channel i + head_dim / 2. Channels of zeros change nothing but the mean that a norm
takes: over n channels of which d are no zeros it is d / n of the mean over d, which weight x sqrt(d / n) and
eps x d / n undo. Names are those of the gguf package's own table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.errors import SpecError
from core.graph.places import tied_names
from core.ship.gguf_layout import BLOCK, DECI, Layout
from core.ship.slots import Slots

Quantised = gguf.GGMLQuantizationType
#: The types that a file may have its matrices in.
TYPES = {"f16": Quantised.F16, "q8_0": Quantised.Q8_0, "f32": Quantised.F32}
_LARGEST_F16 = 65504


@dataclass(frozen=True)
class Entry:
    """One tensor of the file.

    Attributes:
        name: as llama.cpp calls it; shape: with zeros; kind: what its numbers are stored as.
        make: its values, of that shape.
    """

    name: str
    shape: tuple[int, ...]
    kind: Quantised
    make: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        """How many it takes in the file."""
        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        return math.prod(self.shape) // block * size

    def array(self) -> NDArray[Any]:
        """Its bytes. Raises SpecError where a number is out of range."""
        values = self.make().float().numpy()
        if values.size and self.kind != Quantised.F32 and np.abs(values).max() > _LARGEST_F16:
            raise SpecError(f"{self.name} holds numbers beyond {_LARGEST_F16:,}, the largest of 16 bits.")
        return gguf.quants.quantize(values, self.kind)


def entries(model: nn.Module, layout: Layout, kind: str) -> list[Entry]:
    """All tensors of the file; nothing is computed before it is written.

    Args:
        kind: the type of matrices, whose rows must be whole blocks for others than f16; vectors are f32.
    """
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, max(layout.layers) + 1)
    places = {f"blk.{number}": f"blk.{place}" for place, number in enumerate(layout.layers)}
    tied = tied_names(model)
    made: list[Entry] = []
    for parameter, value in model.state_dict().items():
        path, _, ending = parameter.rpartition(".")
        name = names.get_name(path)
        if parameter not in tied and ending in ("weight", "bias"):
            if name is None:
                raise SpecError(f"llama.cpp has no name for {parameter}.")
            block = ".".join(name.split(".")[:2])
            name = places.get(block, block) + name.removeprefix(block)
            made.append(_entry(f"{name}.{ending}", value, layout, TYPES[kind]))
    made += _nothing(made, layout, TYPES[kind])
    return made if layout.architecture == DECI else list(_fused(made, len(layout.ffn)))


def _nothing(made: list[Entry], layout: Layout, kind: Quantised) -> Iterator[Entry]:
    """Feed-forward networks that add zeros, in layers whose own is gone."""
    names = {entry.name for entry in made}
    for number, width in enumerate(layout.ffn):
        if not width or f"blk.{number}.ffn_down.weight" in names:
            continue
        for part, shape in (
            ("norm", (layout.wide,)),
            ("gate", (width, layout.wide)),
            ("up", (width, layout.wide)),
            ("down", (layout.wide, width)),
        ):
            zeros = partial(torch.zeros, shape)
            yield Entry(f"blk.{number}.ffn_{part}.weight", shape, _kind(shape, kind), zeros)


def _entry(name: str, value: Tensor, layout: Layout, kind: Quantised) -> Entry:
    number = re.match(r"blk\.(\d+)\.", name)
    slots, ffn = (layout.slots[int(number[1])], layout.ffn[int(number[1])]) if number else (Slots((), ()), 0)
    part = name.split(".")[-2]
    rows, columns = _places(part, slots, ffn, layout)
    if part.endswith("norm"):
        rows = None if part in ("attn_q_norm", "attn_k_norm") else layout.wide

    def make() -> Tensor:
        made = _filled(value, 0, rows, layout.head_dim)
        made = _filled(made, 1, columns, layout.head_dim) if made.ndim > 1 else made
        if part in ("attn_q", "attn_k") and layout.architecture == DECI:
            made = _interleaved(made, layout.head_dim)
        if part in ("attn_norm", "ffn_norm", "output_norm"):
            made = made.float() * math.sqrt(layout.hidden / layout.wide)
        return made

    shape = (_length(value.shape[0], rows, layout), *(_length(n, columns, layout) for n in value.shape[1:]))
    return Entry(name, shape, _kind(shape, kind), make)


def _kind(shape: tuple[int, ...], kind: Quantised) -> Quantised:
    if len(shape) == 1:
        return Quantised.F32
    return kind if kind == Quantised.F32 or shape[-1] % BLOCK == 0 else Quantised.F16


#: What stands along a dimension: so many channels, the heads at these places, or whatever is there.
Places = int | tuple[int | None, ...] | None


def _places(part: str, slots: Slots, ffn: int, layout: Layout) -> tuple[Places, Places]:
    """What stands along the rows and the columns of a matrix; a bias has the rows of its matrix."""
    wide = layout.wide
    places: dict[str, tuple[Places, Places]] = {
        "attn_q": (slots.queries, wide),
        "attn_k": (slots.keys, wide),
        "attn_v": (slots.keys, wide),
        "attn_output": (wide, slots.queries),
        "ffn_gate": (ffn, wide),
        "ffn_up": (ffn, wide),
        "ffn_down": (wide, ffn),
        "token_embd": (None, wide),
        "output": (None, wide),
    }
    return places.get(part, (None, None))


def _length(size: int, places: Places, layout: Layout) -> int:
    if places is None:
        return size
    return places if isinstance(places, int) else len(places) * layout.head_dim


def _filled(value: Tensor, dim: int, places: Places, head_dim: int) -> Tensor:
    """The same with zeros at the end of a dimension, or with its heads at their places, and zeros."""
    if places is None:
        return value
    if isinstance(places, int):
        missing = places - value.shape[dim]
        return torch.cat([value, value.new_zeros(*_sized(value, dim, missing))], dim) if missing else value
    parts = value.split(head_dim, dim)
    empty = value.new_zeros(*_sized(value, dim, head_dim))
    return torch.cat([empty if place is None else parts[place] for place in places], dim)


def _sized(value: Tensor, dim: int, size: int) -> list[int]:
    return [size if axis == dim else n for axis, n in enumerate(value.shape)]


def _interleaved(value: Tensor, head_dim: int) -> Tensor:
    """Rows of each head in the order 0, half, 1, half + 1, …: what is turned together stands together."""
    halves = value.unflatten(0, (-1, 2, head_dim // 2))  # (heads, 2, head_dim / 2, …)
    return halves.transpose(1, 2).flatten(0, 2)


def _fused(entries: list[Entry], layers: int) -> Iterator[Entry]:
    """Queries, keys and values of each layer as one matrix."""
    by_name = {entry.name: entry for entry in entries}
    for number in range(layers):
        parts = [by_name.pop(f"blk.{number}.attn_{part}.weight") for part in "qkv"]
        shape = (sum(part.shape[0] for part in parts), parts[0].shape[1])
        yield Entry(f"blk.{number}.attn_qkv.weight", shape, parts[0].kind, _joined(parts))
    yield from by_name.values()


def _joined(parts: list[Entry]) -> Callable[[], Tensor]:
    return lambda: torch.cat([part.make() for part in parts])
