"""How much memory a training takes beside its model, before it is begun: an estimate."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.graph.records import Graph
from core.recover.lora import target_modules

#: Bytes for each number that is learned: its gradient, and two of Adam's.
_LEARNED = 12
#: Bytes of a logit in float32.
_LOGIT = 4
#: Bytes of a number in bfloat16.
_HALF = 2


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


def needed_bytes(model: PreTrainedModel, graph: Graph, taken: Taken) -> int:
    """About what a training takes beside the weights.

    What is kept for the backward pass is taken to be what the matrices of the layers read and write: it was
    within a third of what a Llama-like model keeps. Of layers that forget, it is what each reads, and one
    of them as a whole.
    """
    sizes = {
        name: sum(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    }
    config, count = model.config.get_text_config(), len(graph.layer_modules)
    weights = sum(value.numel() for value in model.parameters())
    master = 4 if taken.whole else model.dtype.itemsize
    itemsize = min(master, _HALF) if taken.precision == "bf16" else master
    kept = _kept(sizes, graph.layer_modules, config.hidden_size, taken.recompute) * itemsize
    kept += taken.layers * count * config.hidden_size * 4 + taken.logits * _LOGIT * config.vocab_size
    return (
        _learned(model, graph, taken, sizes, weights) * (_LEARNED + 4 * taken.copies)
        + taken.tokens * kept
        + taken.models * weights * model.dtype.itemsize // taken.shards
        + (4 - model.dtype.itemsize) * weights * taken.whole
        + itemsize * weights * (itemsize < master)  # they are rounded once, and kept for the way back
    )


def freed_bytes(model: PreTrainedModel, graph: Graph, shards: int) -> int:
    """About what a process gains where the weights are sharded: the others' shares, but for what it gathers.

    That is what lies outside the layers, and two layers: the one at work, and the next.
    """
    if shards == 1:
        return 0
    weights = sum(value.numel() for value in model.parameters())
    layers = [
        sum(value.numel() for value in model.get_submodule(name).parameters()) for name in graph.layer_modules
    ]
    gathered = weights - sum(layers) + 2 * max(layers, default=0)
    return max(0, weights - weights // shards - gathered) * model.dtype.itemsize


def _kept(sizes: dict[str, int], layers: tuple[str, ...], hidden: int, recompute: bool) -> int:
    """Numbers that are kept of a token for the way back."""
    inside = Counter[str]()
    for layer in layers:
        inside[layer] = sum(size for name, size in sizes.items() if name.startswith(f"{layer}."))
    return len(layers) * hidden + max(inside.values(), default=0) if recompute else inside.total()


def _learned(model: PreTrainedModel, graph: Graph, taken: Taken, sizes: dict[str, int], weights: int) -> int:
    """How many numbers are learned."""
    if taken.whole:
        return weights
    lora = target_modules(model, graph, taken.targets) if taken.rank else []
    return taken.rank * sum(sizes[name] for name in lora)
