"""Which class of transformers a model is built with: that of a language model, or of one that sees or hears.

A model that takes pictures or sound beside text is built whole, as the class that its weights came from; a
class for its text alone would drop the rest without a word.
"""

from __future__ import annotations

from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    PretrainedConfig,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

_CAUSAL = (AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
_SEEING = (AutoModelForImageTextToText, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
_HEARING = (AutoModelForMultimodalLM, MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES)


def takes_more_than_text(config: PretrainedConfig) -> bool:
    """Whether a config has a part of its own for text, beside others for pictures or sound."""
    return config.get_text_config() is not config


def auto_class(config: PretrainedConfig) -> Any | None:
    """The door of transformers that builds the model a config describes; None if none predicts tokens."""
    kind = config.model_type
    if AutoModelForCausalLM.__name__ in (getattr(config, "auto_map", None) or {}):
        return AutoModelForCausalLM
    more = takes_more_than_text(config)
    doors: list[tuple[Any, Any]] = [_SEEING, _HEARING, _CAUSAL] if more else [_CAUSAL, _SEEING, _HEARING]
    named = (config.architectures or [""])[0]
    from_which = [auto for auto, names in doors if kind in names and names[kind] == named]
    able = [auto for auto, names in doors if kind in names or type(config) in auto._model_mapping]
    return next(iter(from_which + able), None)


def door(config: PretrainedConfig) -> str:
    """The name of the class of transformers that people read such a model with."""
    return str((auto_class(config) or AutoModelForCausalLM).__name__)


def build(config: PretrainedConfig, **arguments: Any) -> Any:
    """A model with new weights. Raises ValueError where no door of transformers builds it."""
    return (auto_class(config) or AutoModelForCausalLM).from_config(config, **arguments)
