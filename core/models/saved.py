"""Save a pruned model as base config + plan + safetensors, and load it again.

    model/  config.json  model.safetensors  plan.json  groups.json  tokenizer  README.md
            base_config.json   only where config.json describes the pruned model (all layers alike)

Loading replays the plan on an empty model and loads strictly; the base weights are not needed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel

from core.errors import ArtifactError, NotPrunableError, StorageError, storage_error
from core.files import write_text
from core.graph.places import tied_names
from core.graph.records import Graph
from core.models.empty import empty_model, fill
from core.models.readme import card
from core.models.uniform import uniform_config
from core.plan.records import PruningPlan
from core.runs.artifacts import GROUPS, PLAN, read_graph
from core.surgery.operate import cut

WEIGHTS = "model.safetensors"
BASE_CONFIG = "base_config.json"


def save(
    model: PreTrainedModel,
    tokenizer: Any,
    graph: Graph,
    plan: PruningPlan,
    folder: str | Path,
    *,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a pruned model; `folder` appears whole or not at all, and replaces an older one.

    Args:
        model: as `cut` left it; its config still describes the dense model.
        tokenizer: is saved along, or None.
        facts: what the README says, under the names of `metrics.json`, and `license`.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
        NotPrunableError: plan and model do not belong together, so that nobody could load the folder.
    """
    weights = _weights(model)
    _check_replay(model, graph, plan)
    with all_or_nothing(Path(folder), sum(t.numel() * t.element_size() for t in weights.values())) as beside:
        reduced = uniform_config(model, graph, plan)
        if reduced is not None:
            write_text(beside / BASE_CONFIG, _config_text(model.config, model))
        write_text(beside / "config.json", _config_text(reduced or model.config, model))
        write_text(beside / PLAN, plan.to_json())
        write_text(beside / GROUPS, graph.to_json())
        write_text(beside / "README.md", card(graph, plan, facts or {}, stock=reduced is not None))
        if tokenizer is not None:
            tokenizer.save_pretrained(beside)
        if model.generation_config is not None:
            model.generation_config.save_pretrained(beside)
        save_file(weights, beside / WEIGHTS, metadata={"format": "pt"})


def load(
    folder: Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, Any, PruningPlan]:
    """Read what `save` wrote, without the base model.

    Args:
        dtype: the weights' type; None keeps the saved one.

    Returns:
        The model in evaluation mode, its tokenizer (None if there is none), and the plan.

    Raises:
        ArtifactError: a file is missing or damaged, or weights and plan do not fit.
    """
    folder = Path(folder)
    plan, graph = _read_plan(folder), read_graph(folder)
    model = empty_model(_read_config(folder))
    try:
        cut(model, graph, plan)
    except NotPrunableError as error:
        raise ArtifactError(f"The plan in {folder} does not fit its config: {error}") from error
    tensors = _read_weights(folder, torch.device(device), dtype)
    fill(model, tensors)
    model.to(torch.device(device))  # type: ignore[arg-type]
    model.config.dtype = next(iter(tensors.values())).dtype
    _read_generation_config(model, folder)
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    tokenizer = AutoTokenizer.from_pretrained(folder) if has_tokenizer else None
    return model.eval(), tokenizer, plan


def from_pretrained(
    folder: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> PreTrainedModel:
    """The pruned model in a folder; `load` without tokenizer and plan. Raises ArtifactError."""
    return load(Path(folder), device=device, dtype=dtype)[0]


def _weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Every tensor to save, contiguous, under its first name."""
    aliases = tied_names(model)
    return {name: value.contiguous() for name, value in model.state_dict().items() if name not in aliases}


def _check_replay(model: PreTrainedModel, graph: Graph, plan: PruningPlan) -> None:
    """Carry out the plan on an empty model, so that nothing is saved that cannot be loaded."""
    replayed = cut(empty_model(model.config), graph, plan)
    shapes = {name: parameter.shape for name, parameter in replayed.named_parameters()}
    if shapes != {name: parameter.shape for name, parameter in model.named_parameters()}:
        raise NotPrunableError(
            "This model is not what its config and this plan give; a model that was pruned before cannot be "
            "saved with a second plan. Start from the dense model with the larger plan."
        )


def _config_text(config: PretrainedConfig, model: PreTrainedModel) -> str:
    values = type(config).from_dict(config.to_dict())
    values.architectures = [type(model).__name__]
    return values.to_json_string(use_diff=True)


@contextmanager
def all_or_nothing(folder: Path, size: int) -> Iterator[Path]:
    """Fill a folder beside `folder`, then move it into place; after an error nothing remains of it."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder.parent).free < size:
            raise OSError(28, "No space left on device")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        yield beside
        if folder.exists():
            folder.rename(replaced)
        beside.rename(folder)
    except Exception as error:
        if (cause := _storage_cause(error)) is None:
            raise
        raise storage_error(folder, cause) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        if replaced.exists() and not folder.exists():
            replaced.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)


def _storage_cause(error: Exception) -> OSError | None:
    """The disk's own error; libraries in Rust report it as text only."""
    if isinstance(error, OSError):
        return error
    if isinstance(error, StorageError):
        return error.__cause__ if isinstance(error.__cause__, OSError) else None
    words = str(error).lower()
    if "os error 28" in words or "no space left" in words:
        return OSError(28, "No space left on device")
    if isinstance(error, SafetensorError) or "os error" in words:
        return OSError(str(error))
    return None


def _read_plan(folder: Path) -> PruningPlan:
    try:
        return PruningPlan.from_json((folder / PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder} has no {PLAN}, so it holds no pruned model.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder / PLAN} is damaged ({error}); run the pruning again.") from error


def _read_config(folder: Path) -> PretrainedConfig:
    path = folder / BASE_CONFIG if (folder / BASE_CONFIG).is_file() else folder / "config.json"
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path} is missing or damaged ({error}); run the pruning again.") from error


def _read_weights(folder: Path, device: torch.device, dtype: torch.dtype | None) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(folder / WEIGHTS, framework="pt", device=str(device)) as file:
            for name in file.keys():  # noqa: SIM118  (the handle is not a dict)
                tensor = file.get_tensor(name)
                tensors[name] = (
                    tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
                )
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"{folder / WEIGHTS} is missing or damaged ({error}); run the pruning again."
        ) from error
    return tensors


def _read_generation_config(model: PreTrainedModel, folder: Path) -> None:
    if (folder / "generation_config.json").is_file():
        model.generation_config = type(model.generation_config).from_pretrained(folder)
