"""A model without weights, ready to receive some: its buffers are computed, its parameters are not."""

from __future__ import annotations

from typing import Any

from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from core.errors import ArtifactError
from core.graph.classes import build
from core.graph.places import tied_names


def empty_model(
    config: PretrainedConfig,
    kind: type[PreTrainedModel] | None = None,
    *,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The model a config describes, its parameters on the meta device and nothing else.

    Buffers that are not saved, such as rotary frequencies, are computed while the model is built, so
    nothing here depends on their names. Tensors that a module keeps as plain attributes and computes beside
    its parameters come out without numbers; they are taken from a model that is really built.

    Args:
        kind: the model's class, where it is at hand; else the config says it.
        trust_remote_code: run code that came with the model, which is never asked for.
    """
    with init_empty_weights(include_buffers=False), no_init_weights():
        model = _build(config, kind, trust_remote_code)
    model.tie_weights()  # outside: inside, every assigned parameter becomes a new one
    if any(_empty_attributes(module) for module in model.modules()):
        with no_init_weights():
            _take_attributes(model, _build(config, kind, trust_remote_code))
    return model.eval()


def _build(
    config: PretrainedConfig, kind: type[PreTrainedModel] | None, trust_remote_code: bool
) -> PreTrainedModel:
    model: PreTrainedModel
    if kind is not None:
        model = kind._from_config(config)
    else:
        model = build(config, trust_remote_code=trust_remote_code)
    return model


def _empty_attributes(module: nn.Module) -> list[str]:
    """Plain attributes that hold tensors on the meta device, be it in a list, a tuple or a dict."""

    def empty(value: Any) -> bool:
        if isinstance(value, Tensor):
            return value.is_meta
        items = value.values() if isinstance(value, dict) else value
        return isinstance(value, (list, tuple, dict)) and any(empty(item) for item in items)

    kept = ("_parameters", "_modules")
    return [name for name, value in vars(module).items() if name not in kept and empty(value)]


def _take_attributes(model: nn.Module, built: nn.Module) -> None:
    for name, module in model.named_modules():
        source = built.get_submodule(name)
        for attribute in _empty_attributes(module):
            setattr(module, attribute, getattr(source, attribute))


def fill(model: PreTrainedModel, tensors: dict[str, Tensor]) -> None:
    """Give an empty model its weights, without copying them; tied parameters stay tied.

    Raises:
        ArtifactError: weights are missing, left over, or of another shape.
    """
    aliases = tied_names(model)
    expected = {name for name in model.state_dict() if name not in aliases}
    missing, stray = sorted(expected - set(tensors)), sorted(set(tensors) - expected)
    if missing or stray:
        wrong = [f"without {', '.join(missing[:3])}"] if missing else []
        wrong += [f"with {', '.join(stray[:3])} left over"] if stray else []
        raise ArtifactError(f"The saved weights do not fit the plan: {' and '.join(wrong)}.")
    try:
        model.load_state_dict(tensors, strict=False, assign=True)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise ArtifactError(f"The saved weights do not fit the plan: {detail}") from error
    for alias, first in aliases.items():
        path, _, name = alias.rpartition(".")
        model.get_submodule(path)._parameters[name] = model.get_parameter(first)
