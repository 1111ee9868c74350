"""How a model lies on disk: in one file or several, in which precision, with code of its own."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.dynamic_module_utils import custom_object_save, get_class_from_dynamic_module
from transformers.utils.hub import cached_file

from core.errors import ArtifactError
from core.graph.classes import takes_more_than_text
from core.models.early import numbers

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
#: No file is larger.
SHARD = "5GB"
_TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
#: How pictures, films and sound are prepared, and how a conversation about them is written.
_SENSES = (
    "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json",
    "chat_template.json",
)  # fmt: skip
#: Where transformers puts code that came with a model.
_DYNAMIC = "transformers_modules"


def write_weights(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write `model.safetensors`, or `model-00001-of-0000N.safetensors` and their index."""
    save_torch_state_dict(dict(weights), folder, max_shard_size=SHARD, metadata={"format": "pt"})


def read_weights(folder: Path, device: torch.device, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Every tensor in a folder's files by its name; None keeps the type that it has there.

    Raises:
        ArtifactError: one is missing or damaged.
    """
    tensors: dict[str, Tensor] = {}
    for path in _files(folder):
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                for name in file.keys():  # noqa: SIM118  (the handle is not a dict)
                    tensor = file.get_tensor(name)
                    rounded = dtype is not None and tensor.is_floating_point()
                    tensors[name] = tensor.to(dtype) if rounded else tensor
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{path} is missing or damaged ({error}); run the pruning again.") from error
    return tensors


def _files(folder: Path) -> list[Path]:
    """The files that the index names, or the only one."""
    index = folder / INDEX
    if not index.is_file():
        return [folder / WEIGHTS]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{index} is damaged ({error}); run the pruning again.") from error
    return [folder / str(name) for name in sorted(names)]


def stored_dtype(folder: Path | None, config: PretrainedConfig) -> torch.dtype | None:
    """The type of most numbers in a folder's safetensors; of the config where there are none, or None."""
    counts: Counter[str] = Counter()
    for path in sorted(folder.glob("*.safetensors")) if folder is not None else []:
        counts.update(numbers(path))
    usual = [_TYPES[name] for name, _ in counts.most_common() if name in _TYPES]
    told = getattr(config.get_text_config(), "dtype", None)
    return usual[0] if usual else told if told in _TYPES.values() else None


def round_to(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Round the weights of a model to what is stored of them, in place; it goes on computing as before."""
    for name, value in model.named_parameters():
        if dtype is not None and value.is_floating_point() and not stays_wide(model, name):
            value.data.copy_(value.data.to(dtype))


def stays_wide(model: Any, name: str) -> bool:
    """Whether the class of a model wants this parameter in float32, whatever the others are in."""
    names = [*(getattr(model, "_keep_in_fp32_modules", None) or ())]
    names += [*(getattr(model, "_keep_in_fp32_modules_strict", None) or ())]
    return any(part in name.split(".") for part in names)


def brings_code(thing: Any) -> bool:
    """Whether the class of a model, a config or a tokenizer came with a model."""
    return type(thing).__module__.startswith(_DYNAMIC)


def carry_code(model: Any, config: PretrainedConfig, folder: Path) -> None:
    """Copy the code that a model came with, and let its config name it where it now lies, and no other."""
    if getattr(config, "auto_map", None) is not None:
        config.auto_map = {}
    for thing, door in ((model, "AutoModelForCausalLM"), (config, "AutoConfig")):
        if brings_code(thing):
            type(thing)._auto_class = door
            custom_object_save(thing, folder, config=cast(Any, config))


def carry_senses(config: PretrainedConfig, folder: Path) -> None:
    """Copy what says how pictures and sound become numbers, where the model takes such and it is at hand."""
    if not takes_more_than_text(config):
        return
    for name in _SENSES:
        at_hand = cached_file(
            config._name_or_path, name, _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False, _raise_exceptions_for_gated_repo=False,
        )  # fmt: skip
        if at_hand is not None:
            shutil.copyfile(at_hand, folder / name)


def carried_class(config: PretrainedConfig, folder: Path) -> Any:
    """The class that came with a model, as its config, which was read with consent, names it; else None.

    Transformers would remember it for the class of the config, whatever reads this folder next.
    """
    named = (getattr(config, "auto_map", None) or {}).get("AutoModelForCausalLM")
    return get_class_from_dynamic_module(named, folder) if named and brings_code(config) else None
