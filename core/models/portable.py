"""What transformers needs beside the weights of a model whose layers differ: data, and a file of code.

The data are differences, found by comparing an empty stock model with an empty one on which the plan was
carried out, so nothing here knows a family. The code is `core.surgery.modeling_pruned` as it
stands, and two classes.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from core.files import write_text
from core.graph.classes import door
from core.graph.hooks import evaluating
from core.models.empty import empty_model
from core.models.stored import brings_code
from core.surgery import modeling_pruned
from core.surgery.modeling_pruned import LayerConfig, PerHead, Scaled, Skipped

CODE = "modeling_pruned"
#: Where it stands in `config.json`.
RECORD = "pruned"
_CLASSES = '''

from {module} import {names}  # noqa: E402


class PrunedForCausalLM(Pruned, {whole}):  # type: ignore[misc]
    """The pruned model, which predicts the next token."""
'''
_INNER = '''

class PrunedModel(Pruned, {inner}):  # type: ignore[misc]
    """Its inner part, without the output layer."""

    pruned_prefix = "{prefix}."
'''


def make_portable(model: PreTrainedModel, replayed: PreTrainedModel, folder: Path) -> bool:
    """Let transformers read a folder whose `config.json` is the dense model's.

    Args:
        replayed: an empty model of the same class after the plan.

    Returns:
        Whether it was done: the class must come from transformers or with the model.
    """
    code = _code(model)
    if code is None:
        return False
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    stock = empty_model(model.config, type(model))
    before = config.get("auto_map") or {}
    config[RECORD] = {**differences(stock, replayed), "auto_map": before}
    doors = {name: f"{CODE}.PrunedForCausalLM" for name in ("AutoModelForCausalLM", door(model.config))}
    if "class PrunedModel" in code:
        doors["AutoModel"] = f"{CODE}.PrunedModel"
    config["auto_map"] = before | doors
    config["architectures"] = ["PrunedForCausalLM"]
    write_text(folder / f"{CODE}.py", code)
    write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
    return True


def without_record(config: PretrainedConfig) -> PretrainedConfig:
    """The dense model's config, whoever else may read the folder. It is changed in place."""
    record = getattr(config, RECORD, None)
    if isinstance(record, dict) and "auto_map" in record:
        delattr(config, RECORD)
        config.auto_map = dict(record["auto_map"])
    return config


def _code(model: PreTrainedModel) -> str | None:
    """The file beside the weights, or None where no other process would find the model's class."""
    whole = type(model)
    module = whole.__module__
    if brings_code(model):
        module = f".{module.rpartition('.')[2]}"
    elif not module.startswith("transformers."):
        return None
    inner = _inner(model)
    names = sorted({whole.__name__, *([inner.__name__] if inner else [])})
    text = inspect.getsource(modeling_pruned) + _CLASSES.format(
        module=module, names=", ".join(names), whole=whole.__name__
    )
    if inner is not None:
        text += _INNER.format(inner=inner.__name__, prefix=model.base_model_prefix)
    return text


def _inner(model: PreTrainedModel) -> type[nn.Module] | None:
    """The class of the part below the output layer, if transformers reads such a folder by itself, too."""
    inner = type(model.base_model)
    alone = inner is not type(model) and inner.__module__ == type(model).__module__
    known = type(model.config) in AutoModel._model_mapping or brings_code(model)
    return inner if alone and known and issubclass(inner, PreTrainedModel) else None


def differences(stock: PreTrainedModel, cut: PreTrainedModel) -> dict[str, Any]:
    """What `core.surgery.modeling_pruned.shrink` makes of the first the second with. Both are empty."""
    with evaluating(stock), evaluating(cut):
        was = {name: tuple(p.shape) for name, p in stock.named_parameters(remove_duplicate=False)}
        now = {name: tuple(p.shape) for name, p in cut.named_parameters(remove_duplicate=False)}
        record: dict[str, Any] = {
            "shapes": {name: list(shape) for name, shape in now.items() if was.get(name) != shape}
        }
        parts = [_of_module(stock.get_submodule(path), module) for path, module in cut.named_modules()]
    for (path, _), part in zip(cut.named_modules(), parts, strict=True):
        for name, value in part.items():
            record.setdefault(name, {})[path] = value
    return record


def _of_module(stock: nn.Module, cut: nn.Module) -> dict[str, Any]:
    """Part of the record -> what it says of one module."""
    said: dict[str, Any] = {}
    if isinstance(cut, Skipped):
        return {"skipped": {name: getattr(cut, name) for name in ("gives", "argument", "several", "cache")}}
    if changed := _attributes(stock, cut):
        said["attributes"] = changed
    config = vars(cut).get("config")
    if isinstance(config, LayerConfig):
        said["config"] = dict(vars(config)["_values"])
    for name, buffer in (("kv_index", "kv_index"), ("outputs", "output_index")):
        if buffer in cut._buffers:
            said[name] = cut.get_buffer(buffer).tolist()
    for hook in (*cut._forward_hooks.values(), *cut._forward_pre_hooks.values()):
        if isinstance(hook, Scaled):
            said["scales"] = hook.factor
        elif isinstance(hook, PerHead):
            said["per_head"] = vars(hook)
    return said


def _attributes(stock: nn.Module, cut: nn.Module) -> dict[str, Any]:
    """Plain numbers, or tuples and lists of them, that a module keeps otherwise."""
    before = vars(stock)
    return {
        name: value
        for name, value in vars(cut).items()
        if name in before and _plain(value) and (type(value), value) != (type(before[name]), before[name])
    }


def _plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_plain, value))
    return isinstance(value, (bool, int, float))
