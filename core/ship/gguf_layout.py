"""The shapes of a pruned model in a GGUF file, from paper: which architecture of llama.cpp reads them.

Most architectures of llama.cpp take one number of heads and one width for all layers. `deci` reads them for
each layer, computes what Llama, Mistral and Qwen2 compute and takes biases; `openelm` does so for Qwen3, with
the output tied to the embedding and without biases. Source: `src/models/deci.cpp` and `openelm.cpp` of
llama.cpp. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.errors import SpecError
from core.ship.records import Layer, Subject
from core.ship.slots import Slots, lay_out

DECI, OPENELM = "deci", "openelm"
#: Family -> the architecture of llama.cpp that computes the same, layer by layer.
ARCHITECTURES = {"llama": DECI, "mistral": DECI, "qwen2": DECI, "qwen3": OPENELM}
#: How positions may be scaled, by architecture. Those of one layer each, or that grow with the text, are not.
ROPES = {DECI: ("default", "linear", "yarn", "llama3", "longrope"), OPENELM: ("default", "linear", "yarn")}
#: Numbers in a row are quantised in blocks of so many.
BLOCK = 32


@dataclass(frozen=True)
class Layout:
    """The shapes in the file.

    Attributes:
        architecture: of llama.cpp.
        hidden: hidden channels that stay; wide: with the channels of zeros beside them.
        head_dim: channels of one head.
        ffn: the width of each layer, with channels of zeros.
        slots: the heads of each layer; empty where it has no attention.
        layers: their numbers in the model: those of which nothing is left are not in the file.
    """

    architecture: str
    hidden: int
    wide: int
    head_dim: int
    ffn: tuple[int, ...]
    slots: tuple[Slots, ...]
    layers: tuple[int, ...]


def layout(subject: Subject, *, pad: int = BLOCK, sparing: str = "params") -> Layout:
    """Lay a model out for llama.cpp.

    Args:
        pad: widths are filled up with zeros to whole multiples of it, or of a block of 32 where they would
            become more than the dense model has; 1 for none.
        sparing: what uneven heads shall take little of.

    Raises:
        SpecError: no architecture of llama.cpp computes this model; says why.
    """
    architecture = _architecture(subject)
    attentions = subject.graph.attentions
    head_dim = attentions[0].head_dim
    if any(each.head_dim != head_dim or each.value_dim != head_dim for each in attentions):
        raise SpecError("its heads differ in width from layer to layer, or keys from values.")
    left = {number: layer for number, layer in enumerate(subject.layers) if layer.heads or layer.ffn}
    return Layout(
        architecture, subject.hidden, _filled(subject.hidden, pad, subject.dense_hidden), head_dim,
        tuple(_width(layer, pad, subject.dense_width) for layer in left.values()),
        tuple(_slots(layer, number == min(left), number, sparing, architecture)
              for number, layer in left.items()),
        tuple(left),
    )  # fmt: skip


def _filled(size: int, multiple: int, dense: int) -> int:
    filled = -(-size // multiple) * multiple
    return filled if filled <= dense or multiple <= BLOCK else -(-size // BLOCK) * BLOCK


def _architecture(subject: Subject) -> str:
    """The architecture for a family. Raises SpecError for what none computes."""
    config = subject.config
    if subject.family not in ARCHITECTURES:
        raise SpecError(f"its layers may differ in {', '.join(ARCHITECTURES)}, not in {subject.family}.")
    architecture = ARCHITECTURES[subject.family]
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise SpecError(f"its FFN is gated by {config['hidden_act']}, where {architecture} takes silu.")
    if not subject.graph.attentions:
        raise SpecError("no attention was found in it.")
    if architecture == OPENELM:
        if not config.get("tie_word_embeddings"):
            raise SpecError(
                "openelm, which would run it, ties the output to the embedding; this one does not."
            )
        biases = [name for name in subject.graph.parameters if name.endswith(".bias")]
        if biases:
            raise SpecError(f"openelm has no biases; {biases[0]} is one.")
        if subject.plan.biases:
            raise SpecError("openelm has no biases, and this refit left some. Prune with --reconstruct none.")
    _check_positions(config, architecture)
    return architecture


def rope_of(config: Any) -> dict[str, Any]:
    """How positions are encoded, as older and newer configs say it."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope.setdefault("rope_type", rope.get("type") or "default")
    return rope


def _check_positions(config: Any, architecture: str) -> None:
    rope = rope_of(config)
    if rope["rope_type"] not in ROPES[architecture] or any(
        isinstance(value, dict) for value in rope.values()
    ):
        raise SpecError(
            f"{architecture} of llama.cpp has no rope of type '{rope['rope_type']}' "
            f"(it has {', '.join(ROPES[architecture])}, alike in all layers)."
        )
    if rope["rope_type"] == "yarn" and not rope.get("truncate", True):
        raise SpecError("llama.cpp truncates YaRN's correction range, which this model does not.")
    partial = rope.get("partial_rotary_factor", config.get("partial_rotary_factor")) or 1.0
    if partial != 1.0:
        raise SpecError(f"{architecture} turns whole heads, this model {partial:g} of each.")


def _width(layer: Layer, pad: int, dense: int) -> int:
    """The width of a layer's FFN; of none some zeros are left, or llama.cpp drops the attention, too."""
    if len(layer.ffn) > 1:
        raise SpecError("it has experts, which deci and openelm have not.")
    return _filled(max(sum(layer.ffn), 1), pad, dense)


def _slots(layer: Layer, first: bool, number: int, sparing: str, architecture: str) -> Slots:
    heads = layer.heads.kv_index if layer.heads is not None else []
    if not heads and (first or architecture == OPENELM):
        why = (
            "the width of heads from the first layer."
            if architecture == DECI
            else "that in no layer of openelm."
        )
        raise SpecError(f"layer {number} has no attention left, and llama.cpp takes {why}")
    return lay_out(heads, sparing)
