"""How much memory a training takes beside its model, before it is begun, and how it may take less."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from core.memory.shapes import Shapes
from core.spec.nuteprune import Settings
from core.spec.recover import WEIGHTS, RecoverSpec

#: Bytes for each number that is learned: its gradient, and two of Adam's.
_LEARNED = 12
#: Bytes of a logit in float32.
_LOGIT = 4
#: Bytes of a number in bfloat16.
_HALF = 2
#: What going through the model once more costs, in tokens; and what to compute the layers again does.
_PART, _AGAIN = 256, 1 / 3


@dataclass(frozen=True)
class Taken:
    """What a training takes, as far as memory depends on it.

    Attributes:
        tokens: that go through the model at once.
        recompute: whether layers forget what is inside them.
        rank, targets: of LoRA; rank 0 for none. whole: all weights are trained, in float32.
        copies: of what is learned, beside itself. logits: of a token that are in memory at once, in float32.
        layers: tensors of every layer's output that a loss looks at. models: further ones in memory.
        precision: `bf16` where matrices are multiplied in it, whatever the weights are in.
        shards: processes over which weights that are not trained are sharded; 1 for none.
    """

    tokens: int
    recompute: bool
    rank: int
    targets: str
    copies: int
    logits: int
    layers: int = 0
    models: int = 0
    whole: bool = False
    precision: str = "no"
    shards: int = 1


@dataclass(frozen=True)
class Way:
    """How a training goes through its batches: in how many parts, and whether layers forget their inside.

    Attributes:
        shards: processes over which the weights that are not trained are sharded; 1 for none.
    """

    parts: int
    recompute: bool
    shards: int = 1

    @property
    def words(self) -> str:
        """What it does, for people."""
        parts = f"batches in {self.parts} parts" if self.parts > 1 else "whole batches"
        again = ", layers computed again on the way back" if self.recompute else ""
        return parts + again + (f", frozen weights sharded over {self.shards}" if self.shards > 1 else "")

    @property
    def checkpointing(self) -> str:
        """The option `gradient_checkpointing` that asks for it."""
        return "on" if self.recompute else "off"


def ways(
    share: int, least: int, tokens: int, checkpointing: str, sharding: str = "off", processes: int = 1
) -> list[Way]:
    """What may be done about memory, the quickest first, that asked for before all; all learn the same.

    Args:
        share: sequences of a batch that this process reads; least: parts asked for.
        tokens: in a sequence; checkpointing: the option `gradient_checkpointing`.
        sharding: the option `shard_weights`, which is for several processes.
    """

    def cost(way: Way) -> tuple[int, float]:
        # every part gathers all weights once more, twice with the way back
        return way.shards, (1 + _AGAIN * way.recompute) * (share * tokens + _PART * way.parts)

    switch = {"auto": (False, True), "on": (True,), "off": (False,)}
    shards = dict.fromkeys(processes if on else 1 for on in switch[sharding])
    parts = [number for number in range(least, share + 1) if share % number == 0]
    every = itertools.product(parts, switch[checkpointing], shards)
    return sorted((Way(*way) for way in every), key=cost)


def of_masks(settings: Settings, length: int, precision: str, processes: int = 1) -> dict[Way, Taken]:
    """What every way of a method that learns masks takes, the quickest first.

    Args:
        length: tokens in a window; precision: what matrices are multiplied in; processes: that share a batch.
    """
    share = settings.batch // processes
    every = ways(
        share, -(-share // settings.part), length, settings.gradient_checkpointing, settings.shard_weights,
        processes,
    )  # fmt: skip
    return {
        way: Taken(
            share // way.parts * length, way.recompute, settings.lora_rank, settings.lora_targets,
            copies=2,  # the student's and the teacher's
            logits=3,  # the student's, the teacher's, and what the divergence makes of them
            layers=3 * (settings.layer_weight > 0), models=int(settings.distillation == "second_model"),
            precision=precision, shards=way.shards,
        )
        for way in every
    }  # fmt: skip


def of_recipe(recipe: RecoverSpec, precision: str, processes: int = 1) -> dict[Way, Taken]:
    """What every way to train a model after its cut takes, the quickest first."""
    whole, live = recipe.targets == WEIGHTS, recipe.distils and not recipe.top_k
    share = recipe.batch // processes
    least, sharding = -(-share // recipe.micro_batch), "off" if whole else recipe.shard_weights
    every = ways(share, least, recipe.length, recipe.gradient_checkpointing, sharding, processes)
    return {
        way: Taken(
            share // way.parts * recipe.length, way.recompute, recipe.rank, recipe.targets,
            copies=1 if whole else 2,  # the best so far
            logits=3 if recipe.distils else 2,
            layers=3 * (recipe.layer_weight > 0), models=int(live), whole=whole, precision=precision,
            shards=way.shards,
        )
        for way in every
    }  # fmt: skip


def needed_bytes(shapes: Shapes, taken: Taken, itemsize: int) -> int:
    """About what a training takes beside the weights.

    What is kept for the backward pass is taken to be what the matrices of the layers read and write: it was
    within a third of what a Llama-like model keeps. Of layers that forget, it is what each reads, and one
    of them as a whole.

    Args:
        itemsize: bytes of a weight as the model holds it.
    """
    weights, count = shapes.numbers, len(shapes.layers)
    master = 4 if taken.whole else itemsize
    multiplied = min(master, _HALF) if taken.precision == "bf16" else master
    kept = _kept(shapes, taken.recompute) * multiplied
    kept += taken.layers * count * shapes.hidden * 4 + taken.logits * _LOGIT * shapes.vocabulary
    learned = weights if taken.whole else shapes.learned(taken.targets, taken.rank)
    return int(
        learned * (_LEARNED + 4 * taken.copies)
        + taken.tokens * kept
        + taken.models * weights * itemsize // taken.shards
        + (4 - itemsize) * weights * taken.whole
        + multiplied * weights * (multiplied < master)  # they are rounded once, and kept for the way back
    )


def freed_bytes(shapes: Shapes, shards: int, itemsize: int, held: int | None = None) -> int:
    """About what a process gains where the weights are sharded: the others' shares, but for what it gathers.

    That is what lies outside the layers, and two layers: the one at work, and the next. It is less than
    nothing where the weights have rested elsewhere.

    Args:
        held: bytes of the weights that are on the device by now; None for all.
    """
    if shards == 1:
        return 0
    weights, layers = shapes.numbers, shapes.in_layers
    gathered = weights - sum(layers) + 2 * max(layers, default=0)
    return (weights * itemsize if held is None else held) - (weights // shards + gathered) * itemsize


def _kept(shapes: Shapes, recompute: bool) -> float:
    """Numbers that are kept of a token for the way back."""
    inside = shapes.passed
    return len(inside) * shapes.hidden + max(inside, default=0) if recompute else sum(inside)
