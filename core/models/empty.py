"""A model without weights, ready to receive some: its buffers are computed, its parameters are not."""

from __future__ import annotations

from accelerate import init_empty_weights
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from core.errors import ArtifactError
from core.graph.places import tied_names


def empty_model(config: PretrainedConfig) -> PreTrainedModel:
    """The model a config describes, its parameters on the meta device.

    Buffers that are not saved, such as rotary frequencies, are computed while the model is built, so
    nothing here depends on their names.
    """
    with init_empty_weights(include_buffers=False), no_init_weights():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    model.tie_weights()  # outside: inside, every assigned parameter becomes a new one
    return model.eval()


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
