"""Save a pruned model as base config + plan + safetensors, and load it again.

    model/  config.json  model.safetensors  plan.json  groups.json  tokenizer  README.md
            base_config.json   only where config.json describes the pruned model (all layers alike, and
                               numbered anew where whole layers are gone)

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
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel

from core.errors import ArtifactError, NotPrunableError
from core.files import all_or_nothing, write_text
from core.graph.classes import door
from core.graph.places import tied_names
from core.graph.records import Graph
from core.models.empty import empty_model, fill
from core.models.portable import make_portable, without_record
from core.models.readback import probe, read_back
from core.models.readme import card
from core.models.stored import (
    brings_code,
    carried_class,
    carry_code,
    carry_senses,
    read_weights,
    round_to,
    stays_wide,
    write_weights,
)
from core.models.uniform import numbered_anew, renamed, uniform_config
from core.plan.records import PruningPlan
from core.results.agreement import Agreement
from core.runs.artifacts import BASE_CONFIG, GROUPS, PLAN, read_graph
from core.surgery.operate import cut


def save(
    model: PreTrainedModel,
    tokenizer: Any,
    graph: Graph,
    plan: PruningPlan,
    folder: str | Path,
    *,
    facts: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> list[Agreement]:
    """Write a pruned model; `folder` appears whole or not at all, and replaces an older one.

    Before it appears, it is read in a process of its own, and has to compute what the model computes.

    Args:
        model: as `cut` left it; its config still describes the dense model.
        tokenizer: is saved along, or None.
        facts: what the README says, under the names of `metrics.json` and `core.models.card_head`.
        dtype: of the weights on disk, to which those of the model are rounded; None for what they are in.

    Returns:
        How close each way to read the folder came; see `core.models.readback`.

    Raises:
        ArtifactError: the folder does not read back; it is kept beside, with `-unread` after its name.
        StorageError: the folder cannot be written, or the disk is full.
        NotPrunableError: plan and model do not belong together, so that nobody could load the folder.
    """
    replayed = _replayed(model, graph, plan)
    round_to(model, dtype)
    weights = _weights(model, dtype)
    with all_or_nothing(Path(folder), sum(t.numel() * t.element_size() for t in weights.values())) as beside:
        reduced = uniform_config(model, graph, plan)
        if reduced is not None:
            write_text(beside / BASE_CONFIG, _config_text(model.config, model, weights, beside))
            weights = renamed(weights, numbered_anew(graph, plan))
        write_text(beside / "config.json", _config_text(reduced or model.config, model, weights, beside))
        portable = reduced is None and make_portable(model, replayed, beside)
        write_text(beside / PLAN, plan.to_json())
        write_text(beside / GROUPS, graph.to_json())
        described = {**(facts or {}), "brings_code": brings_code(model), "door": door(model.config)}
        write_text(
            beside / "README.md", card(graph, plan, described, stock=reduced is not None, portable=portable)
        )
        if tokenizer is not None:
            tokenizer.save_pretrained(beside)
        carry_senses(model.config, beside)
        if model.generation_config is not None:
            model.generation_config.save_pretrained(beside)
        write_weights(weights, beside)
        _let_others_read(beside)
        with _keeping_what_failed(beside, Path(folder)):
            return read_back(beside, probe(model, stock=reduced is not None or portable))


def load(
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, Any, PruningPlan]:
    """Read what `save` wrote, without the base model.

    Args:
        dtype: the weights' type; None keeps the saved one.
        trust_remote_code: let a model that brings code of its own run it.

    Returns:
        The model in evaluation mode, its tokenizer (None if there is none), and the plan.

    Raises:
        ArtifactError: a file is missing or damaged, or weights and plan do not fit.
    """
    folder = Path(folder)
    plan, graph = _read_plan(folder), read_graph(folder)
    config = _read_config(folder, trust_remote_code)
    model = empty_model(config, carried_class(config, folder), trust_remote_code=trust_remote_code)
    try:
        cut(model, graph, plan)
    except NotPrunableError as error:
        raise ArtifactError(f"The plan in {folder} does not fit its config: {error}") from error
    tensors = read_weights(folder, torch.device(device), dtype)
    if (folder / BASE_CONFIG).is_file():
        tensors = renamed(tensors, {now: was for was, now in numbered_anew(graph, plan).items()})
    fill(model, tensors)
    model.to(torch.device(device))  # type: ignore[arg-type]
    model.config.dtype = next(iter(tensors.values())).dtype
    _read_generation_config(model, folder)
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    tokenizer = (
        AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code) if has_tokenizer else None
    )
    return model.eval(), tokenizer, plan


def from_pretrained(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The pruned model in a folder; `load` without tokenizer and plan. Raises ArtifactError."""
    return load(Path(folder), device=device, dtype=dtype, trust_remote_code=trust_remote_code)[0]


def _weights(model: PreTrainedModel, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Every tensor to save, contiguous, under its first name."""
    aliases, rounded = tied_names(model), {name for name, _ in model.named_parameters()}
    return {
        name: (
            value.to(dtype) if dtype and name in rounded and not stays_wide(model, name) else value
        ).contiguous()
        for name, value in model.state_dict().items()
        if name not in aliases
    }


def _let_others_read(folder: Path) -> None:
    """Give every file the rights that a new file gets: safetensors keeps its own from everybody else."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.iterdir():
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def _replayed(model: PreTrainedModel, graph: Graph, plan: PruningPlan) -> PreTrainedModel:
    """The plan carried out on an empty model, so that nothing is saved that cannot be loaded."""
    replayed = cut(empty_model(model.config, type(model)), graph, plan)
    shapes = {name: parameter.shape for name, parameter in replayed.named_parameters()}
    if shapes != {name: parameter.shape for name, parameter in model.named_parameters()}:
        raise NotPrunableError(
            "This model is not what its config and this plan give; one that was pruned before is saved with "
            "the plan of all its cuts, as a run of it does (`python -m core prune runs/ID`)."
        )
    return replayed


def _config_text(
    config: PretrainedConfig, model: PreTrainedModel, weights: Mapping[str, Tensor], folder: Path
) -> str:
    """A config as it is saved: with the type of the weights beside it, and the code that it needs."""
    values = type(config).from_dict(config.to_dict())
    values.architectures = [type(model).__name__]
    values.dtype = next(value.dtype for value in weights.values() if value.is_floating_point())
    carry_code(model, values, folder)
    return values.to_json_string(use_diff=True)


@contextmanager
def _keeping_what_failed(beside: Path, folder: Path) -> Iterator[None]:
    """Keep a folder that does not read back, out of the way, and say where."""
    try:
        yield
    except ArtifactError as error:
        unread = folder.with_name(f"{folder.name}-unread")
        shutil.rmtree(unread, ignore_errors=True)
        beside.rename(unread)
        words = str(error).replace(str(beside), "What was saved").rstrip(".")
        raise ArtifactError(f"{words}. It is kept in {unread}, and nothing else is lost.") from error


def _read_plan(folder: Path) -> PruningPlan:
    try:
        return PruningPlan.from_json((folder / PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder} has no {PLAN}, so it holds no pruned model.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder / PLAN} is damaged ({error}); run the pruning again.") from error


def _read_config(folder: Path, trust_remote_code: bool) -> PretrainedConfig:
    name = BASE_CONFIG if (folder / BASE_CONFIG).is_file() else "config.json"
    path = folder / name
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            folder, _configuration_file=name, trust_remote_code=trust_remote_code
        )
        return without_record(config)
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise ArtifactError(
                f"{folder} brings code of its own: read that code, then allow it with --trust-remote-code "
                "(trust_remote_code=True) if you trust it."
            ) from error
        raise ArtifactError(f"{path} is missing or damaged ({error}); run the pruning again.") from error


def _read_generation_config(model: PreTrainedModel, folder: Path) -> None:
    if (folder / "generation_config.json").is_file():
        model.generation_config = type(model.generation_config).from_pretrained(folder)
