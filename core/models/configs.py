"""A model's config, read and checked before anything is built of it: sizes, lists per layer, quantising.

What is checked of its values alone needs no transformers: the dashboard says it before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import StrictDataclassError

from core.errors import UNREADABLE, ModelError, unreadable
from core.models.sources import Source

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: Formats of which transformers makes plain weights again by itself.
DEQUANTISED = ("fp8", "mxfp4")
#: The name of a size has one of these in it -> the largest that is accepted. Llama 4 reads 10 M positions.
_LARGEST = {
    "position": 2**26, "seq_len": 2**26, "n_ctx": 2**26, "vocab": 2**24, "layers": 1_000, "n_layer": 1_000,
    "depth": 1_000, "heads": 2**14, "n_head": 2**14, "experts": 2**12, "size": 2**20, "dim": 2**20,
    "inner": 2**20, "ffn": 2**20, "n_embd": 2**20, "d_model": 2**20, "rank": 2**20,
}  # fmt: skip
_NOT_SIZES = ("image_size", "token", "window", "chunk", "layers_", "interval", "patch", "vision", "audio")
#: Sizes of which there has to be at least one.
_NEEDED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "n_layer", "n_layers", "n_head", "n_heads", "n_embd", "d_model",
)  # fmt: skip
_SEQ2SEQ = "an encoder with a decoder (sequence to sequence)"
_ENCODER = "an encoder, or another model that does not predict the next token"
#: Classes that predict no next token end in one of these.
_NO_DECODERS = ("ForMaskedLM", "ForImageClassification", "ForAudioClassification", "ForCTC")
_PARTS = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")


def read_config(source: Source, given: str, trust_remote_code: bool) -> PretrainedConfig:
    """The config of a model that predicts the next token, checked. Raises ModelError."""
    from transformers import AutoConfig, PretrainedConfig

    try:
        values, _ = PretrainedConfig.get_config_dict(source.where, **source.arguments())
        check_values(values, given)
        config = AutoConfig.from_pretrained(
            source.where, trust_remote_code=trust_remote_code, **source.arguments()
        )
    except (*UNREADABLE, StrictDataclassError) as error:
        raise unreadable(given, error) from error
    check_decoder(config, given)
    return config


def check_values(values: Mapping[str, Any], given: str) -> None:
    """Raise ModelError for a config of quantised weights, of absurd sizes, or that contradicts itself."""
    _check_kinds(values, given)
    _check_quantised(values, given)
    for part in texts(values):
        for name, value in part.items():
            _check_size(name, value, given)
        _check_lists(part, given)
        _check_heads(part, given)


def _check_kinds(values: Mapping[str, Any], given: str) -> None:
    """Raise ModelError where something is of another kind than whoever reads it takes it for."""
    named = values.get("architectures")
    if named is not None and not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise ModelError(
            f"{given} cannot be read: its config says architectures {named!r:.80}, which has to be names."
        )
    for name in (*_PARTS, "quantization_config", "compression_config"):
        told = values.get(name)
        if name.endswith("_config") and not isinstance(told, dict | None):
            raise ModelError(
                f"{given} cannot be read: its config says {name} {told!r:.80}, which has to be an object."
            )


def texts(values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A config, and those of the language model in it."""
    yield values
    for name in _PARTS:
        if isinstance(values.get(name), dict):
            yield from texts(values[name])


def method_of_quantising(values: Mapping[str, Any]) -> str | None:
    """By which method the weights are quantised, or None."""
    for part in texts(values):
        for name in ("quantization_config", "compression_config"):
            told = part.get(name)
            if isinstance(told, dict) and told:
                by_bits = (
                    "bitsandbytes"
                    if told.get("load_in_4bit") or told.get("load_in_8bit")
                    else "an unnamed method"
                )
                return str(told.get("quant_method") or by_bits)
    return None


def _check_quantised(values: Mapping[str, Any], given: str) -> None:
    method = method_of_quantising(values)
    if method is not None and method not in DEQUANTISED:
        raise quantised(given, method)


def quantised(given: str, how: str) -> ModelError:
    """The error for weights that are no plain numbers any more."""
    return ModelError(
        f"{given} has quantised weights ({how}), and quantised weights cannot be pruned; "
        "give the model it was made from."
    )


def _check_size(name: str, value: Any, given: str) -> None:
    if type(value) is not int:
        return
    if name in _NEEDED and value < 1:
        raise ModelError(
            f"{given} cannot be a model: its config says {name} {value}, which has to be 1 or more."
        )
    if any(part in name for part in _NOT_SIZES):
        return
    most = next((limit for part, limit in _LARGEST.items() if part in name), None)
    if most is not None and value > most:
        raise ModelError(
            f"{given} cannot be a model: its config says {name} {value:,}, and at most {most:,} are accepted."
        )


def _check_lists(values: Mapping[str, Any], given: str) -> None:
    """Raise ModelError where a list of words per layer has another length than there are layers."""
    layers = next(
        (values[name] for name in ("num_hidden_layers", "n_layer", "n_layers") if name in values), None
    )
    for name, value in values.items():
        per_layer = isinstance(value, list) and "layer" in name and all(isinstance(x, str) for x in value)
        if per_layer and value and type(layers) is int and len(value) != layers:
            raise ModelError(
                f"{given} cannot be read: its config says {layers} layers, and {name} for {len(value)} of "
                f"them; make {name} as long as there are layers."
            )


def _check_heads(values: Mapping[str, Any], given: str) -> None:
    heads, shared = values.get("num_attention_heads"), values.get("num_key_value_heads")
    if type(heads) is int and type(shared) is int and heads % shared:
        raise ModelError(
            f"{given} cannot be a model: its config says {heads} query heads and {shared} key-value heads, "
            "and each of these has to serve the same number of those."
        )


def check_decoder(config: PretrainedConfig, given: str) -> None:
    """Raise ModelError for an encoder, with or without a decoder."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    from core.graph.classes import auto_class

    kind = config.model_type
    masked = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and getattr(config, "is_decoder", None) is False
    if config.is_encoder_decoder or config.get_text_config().is_encoder_decoder:
        problem = _SEQ2SEQ
    elif masked or auto_class(config) is None:
        problem = _ENCODER
    else:
        return
    raise not_a_decoder(given, ", ".join(config.architectures or []) or type(config).__name__, kind, problem)


def refuse_encoder(values: Mapping[str, Any], given: str) -> None:
    """Raise ModelError for an encoder, with or without a decoder, as far as a config says so by itself."""
    named = [str(name) for name in values.get("architectures") or ()]
    if any(part.get("is_encoder_decoder") is True for part in texts(values)):
        problem = _SEQ2SEQ
    elif named and not values.get("is_decoder") and all(name.endswith(_NO_DECODERS) for name in named):
        problem = _ENCODER
    else:
        return
    kind = str(values.get("model_type", "of no type"))
    raise not_a_decoder(given, ", ".join(named) or kind, kind, problem)


def not_a_decoder(given: str, name: str, kind: str, problem: str) -> ModelError:
    """The error for a model that does not predict the next token."""
    return ModelError(
        f"{given} is {name} ({kind}): {problem}. Only decoders that predict the next token are accepted, "
        "those that AutoModelForCausalLM or AutoModelForImageTextToText loads, for example Llama, Mistral, "
        "Qwen, GPT-2, Gemma 3 or LLaVA."
    )
