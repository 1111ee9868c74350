"""The weights of a model, read into memory as plain numbers of one type."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.utils import logging

from core.errors import UNREADABLE, ModelError, unreadable
from core.graph.classes import auto_class, build
from core.models.adapters import without_adapter
from core.models.configs import DEQUANTISED, method_of_quantising, quantised
from core.models.early import MOST_MISSING, check_stored, too_few
from core.models.sources import Source


def read_pretrained(
    source: Source, config: PretrainedConfig, given: str, dtype: torch.dtype, trust_remote_code: bool
) -> tuple[PreTrainedModel, list[str]]:
    """The model of a config with its weights, as plain numbers, and notes on them. Raises ModelError."""
    config = copy.deepcopy(config)  # which goes on saying what the files say
    method = method_of_quantising(config.to_dict())
    if method in DEQUANTISED:
        _dequantise(config)
    if source.kind != "folder":
        return _read(source.where, source, config, given, dtype, trust_remote_code)
    folder = Path(source.where)
    if counts := check_stored(folder, config.to_dict(), given):
        _refuse_absurd(config, counts, given, trust_remote_code)
    with without_adapter(folder) as plain:
        model, notes = _read(str(plain), source, config, given, dtype, trust_remote_code)
    model.name_or_path = model.config._name_or_path = str(folder)
    return model, notes


def _read(
    where: str,
    source: Source,
    config: PretrainedConfig,
    given: str,
    dtype: torch.dtype,
    trust_remote_code: bool,
) -> tuple[PreTrainedModel, list[str]]:
    loader: Any = auto_class(config) or AutoModelForCausalLM
    try:
        with _no_report():
            model, report = loader.from_pretrained(
                where,
                config=config,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, with both sizes
                **source.arguments(),
            )
    except UNREADABLE as error:
        raise unreadable(given, error) from error
    if report["mismatched_keys"]:
        name, stored, wanted = sorted(report["mismatched_keys"])[0]
        raise ModelError(
            f"{given} has {name} with {_by(stored)} numbers, and its config wants {_by(wanted)}; "
            "give the config that belongs to these weights."
        )
    _tie_what_is_missing(model, report["missing_keys"])
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"{given} lacks {len(missing)} of the model's weights, first {missing[0]}; "
            "give a complete decoder checkpoint."
        )
    unread = sorted(name for name in report["unexpected_keys"] if name.endswith("_scale"))
    if unread and method_of_quantising(config.to_dict()) in DEQUANTISED:
        raise quantised(given, f"fp8 with scales as in {unread[0]}")
    _forget_quantising(model)
    return model, _left_over(report["unexpected_keys"], given)


def _left_over(names: set[str], given: str) -> list[str]:
    """A note on weights that the model of this config has no place for."""
    if not names:
        return []
    return [
        f"{given} has {len(names)} weights that the model of its config has no place for, first {min(names)}"
        ": they are left out"
    ]


@contextmanager
def _no_report() -> Iterator[None]:
    """Without the tables that transformers prints of weights that are missing or left over."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _by(shape: Any) -> str:
    return " x ".join(map(str, shape))


def _tie_what_is_missing(model: PreTrainedModel, missing: set[str]) -> None:
    """Let the output layer be the embedding where only one is in the files; both then leave `missing`."""
    ties = getattr(model, "_tied_weights_keys", None)
    if not missing or not isinstance(ties, dict) or not missing <= {*ties, *ties.values()}:
        return
    for part in (model.config, model.config.get_text_config()):
        part.tie_word_embeddings = True
    model.tie_weights(missing_keys=missing)
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)


def _dequantise(config: PretrainedConfig) -> None:
    """Ask transformers for plain numbers, on a GPU that could compute with quantised ones, too."""
    for part in (config, config.get_text_config()):
        if isinstance(getattr(part, "quantization_config", None), dict):
            part.quantization_config = {**part.quantization_config, "dequantize": True}


def _forget_quantising(model: Any) -> None:
    """Weights that were dequantised are plain: without this they could not be saved."""
    if getattr(model, "hf_quantizer", None) is None:
        return
    model.hf_quantizer = None
    for thing in (model, model.config, model.config.get_text_config()):
        for name in ("quantization_config", "quantization_method"):
            if getattr(thing, name, None) is not None:
                delattr(thing, name)


def _refuse_absurd(config: PretrainedConfig, counts: Counter[str], given: str, trust: bool) -> None:
    """Raise ModelError where a config describes far more than the files hold, before it takes any memory."""
    try:
        with torch.device("meta"), no_init_weights():
            wanted = sum(value.numel() for value in build(config, trust_remote_code=trust).parameters())
    except UNREADABLE as error:
        raise unreadable(given, error) from error
    stored = sum(counts.values())
    if wanted > MOST_MISSING * stored:
        raise too_few(given, stored, f"{wanted:,}")
