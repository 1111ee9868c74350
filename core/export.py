"""What a pruned model leaves behind, and reading it back.

A saved model is its base config, the plan, and the weights that are left. Loading replays the plan on an
empty model and then loads strictly, so widths may differ from layer to layer and no base weights are needed.
"""

from __future__ import annotations

import errno
import os
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PretrainedConfig

from core.artifacts import GROUPS, PLAN, read_graph, read_plan, storage_error, write_json
from core.errors import ArtifactError
from core.graph.records import Graph
from core.model_card import card_text
from core.plan import PruningPlan
from core.surgery import operate

FACTS = "facts.json"
CARD = "README.md"


def save(
    model: Any, tokenizer: Any, graph: Graph, plan: PruningPlan, folder: Path, *, facts: dict[str, Any]
) -> None:
    """Write a pruned model to `folder`; what was there before is replaced only once all is written.

    Args:
        model: after `surgery.operate`; its config still describes the dense model.
        facts: numbers for the model card and `facts.json`, e.g. `ppl_before`, `ppl_after`, `ppl_text`.

    Raises:
        StorageError: the disk is full or the folder cannot be written. Nothing half-written is left.
    """
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        beside.mkdir(parents=True, exist_ok=False)
        save_torch_state_dict(model.state_dict(), beside, shared_tensors_to_discard=list(graph.tied))
        model.config.save_pretrained(beside)
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        (beside / PLAN).write_text(plan.to_json(), encoding="utf-8")
        (beside / GROUPS).write_text(graph.to_json(), encoding="utf-8")
        (beside / CARD).write_text(card_text(graph, plan, facts), encoding="utf-8")
        write_json(beside / FACTS, facts)
        _put_in_place(beside, folder)
    except SafetensorError as error:
        cause = OSError(errno.ENOSPC, str(error)) if "space" in str(error) else OSError(str(error))
        raise storage_error(folder, cause) from error
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _put_in_place(beside: Path, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    beside.replace(folder)


def load(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[Any, Any, PruningPlan]:
    """Read what `save` wrote: the model in evaluation mode, its tokenizer and its plan.

    Args:
        dtype: of the weights; None keeps the one they were saved in.

    Raises:
        ArtifactError: a file is missing or damaged, or the weights do not fit the plan.
    """
    graph, plan = read_graph(folder), read_plan(folder)
    config = AutoConfig.from_pretrained(folder)
    model = _empty(config, graph, plan)
    _fill(model, folder, torch.device(device), dtype)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.eval(), AutoTokenizer.from_pretrained(folder), plan


def from_pretrained(
    folder: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Any:
    """The pruned model in `folder`, ready to generate or to train. Raises ArtifactError."""
    return load(Path(folder), device=device, dtype=dtype)[0]


def _empty(config: PretrainedConfig, graph: Graph, plan: PruningPlan) -> Any:
    """The pruned model without weights, on the meta device; buffers that are not saved hold their values."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    operate(model, graph, plan.removed)
    with init_empty_weights(include_buffers=False):
        computed = dict(AutoModelForCausalLM.from_config(config).named_buffers())
    for name, buffer in list(model.named_buffers()):
        if not buffer.is_meta:
            continue
        if name not in computed or computed[name].shape != buffer.shape:
            raise ArtifactError(f"Buffer {name} of this model cannot be computed again; prune it once more.")
        owner, _, key = name.rpartition(".")
        model.get_submodule(owner)._buffers[key] = computed[name]
    return model


def _fill(model: nn.Module, folder: Path, device: torch.device, dtype: torch.dtype | None) -> None:
    """Load all weights, strictly."""
    state: dict[str, torch.Tensor] = {}
    try:
        for file in sorted(folder.glob("*.safetensors")):
            state |= load_file(file)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{folder} holds damaged weights ({error}); prune the model again.") from error
    try:
        stray = model.load_state_dict(state, strict=False, assign=True).unexpected_keys
    except RuntimeError as error:
        raise ArtifactError(f"The weights in {folder} do not fit its plan: {error}") from error
    model.tie_weights()  # type: ignore[operator]
    missing = [
        name for name, tensor in chain(model.named_parameters(), model.named_buffers()) if tensor.is_meta
    ]
    if missing or stray:
        raise ArtifactError(
            f"The weights in {folder} lack {missing or 'nothing'} and have {list(stray)} too many."
        )
    model.to(device=device, dtype=dtype) if dtype else model.to(device)
