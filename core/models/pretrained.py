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

from core.errors import UNREADABLE, ArtifactError, ModelError, unreadable
from core.graph.classes import auto_class, build
from core.models.adapters import WEIGHTS as ADAPTER
from core.models.adapters import without_adapter
from core.models.configs import DEQUANTISED, method_of_quantising, quantised
from core.models.sources import Source
from core.models.stored import numbers

#: Types of numbers that only quantised weights have, as safetensors calls them.
_PACKED = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "F8_E4M3", "F8_E5M2", "F4", "F8_E8M0")
#: From this share on, packed numbers are weights, not indices beside them.
_MOST_PACKED = 0.2
#: A model of this many times what is stored is none of these weights (shared ones are stored once).
_MOST_MISSING = 4


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
    if counts := check_stored(folder, config, given):
        _refuse_absurd(config, counts, given, trust_remote_code)
    with without_adapter(folder) as plain:
        model, notes = _read(str(plain), source, config, given, dtype, trust_remote_code)
    model.name_or_path = model.config._name_or_path = str(folder)
    return model, notes


def check_stored(folder: Path, config: PretrainedConfig, given: str) -> Counter[str]:
    """How many numbers of each type a folder holds. Raises ModelError where they cannot be pruned."""
    _refuse_pickles(folder)
    counts = _counts(folder, given)
    if method_of_quantising(config.to_dict()) is None:
        _refuse_packed(counts, given)
    return counts


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


def _refuse_pickles(folder: Path) -> None:
    """Raise ModelError if a folder has its weights in pickles, or in a GGUF, only."""
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(file.name for end in ("bin", "pt", "pth", "ckpt") for file in folder.glob(f"*.{end}"))
    if pickled:
        raise ModelError(
            f"{folder} has its weights in {pickled[0]} only, a pickle, which can run code when it is read; "
            "save the model as safetensors, as save_pretrained of transformers does, and give that folder."
        )
    for file in sorted(folder.glob("*.gguf")):
        raise ModelError(f"{folder} has its weights in a GGUF; give the file {file} instead.")


def _counts(folder: Path, given: str) -> Counter[str]:
    """How many numbers of each type the weights of a folder are. Raises ModelError."""
    counts: Counter[str] = Counter()
    for path in folder.glob("*.safetensors"):
        if path.name != ADAPTER:
            try:
                counts.update(numbers(path))
            except ArtifactError as error:
                raise unreadable(given, error.__cause__ or error) from error  # type: ignore[arg-type]
    return counts


def _refuse_packed(counts: Counter[str], given: str) -> None:
    """Raise ModelError for quantised weights whose config does not say so."""
    packed = {name: counts[name] for name in _PACKED if counts[name]}
    if sum(packed.values()) > _MOST_PACKED * sum(counts.values()):
        raise quantised(given, f"most are {max(packed, key=packed.__getitem__)}")


def _refuse_absurd(config: PretrainedConfig, counts: Counter[str], given: str, trust: bool) -> None:
    """Raise ModelError where a config describes far more than the files hold, before it takes any memory."""
    try:
        with torch.device("meta"), no_init_weights():
            wanted = sum(value.numel() for value in build(config, trust_remote_code=trust).parameters())
    except UNREADABLE as error:
        raise unreadable(given, error) from error
    stored = sum(counts.values())
    if wanted > _MOST_MISSING * stored:
        raise ModelError(
            f"{given} has {stored:,} numbers in its weights, and its config describes a model of {wanted:,}; "
            "give the config that belongs to these weights."
        )
