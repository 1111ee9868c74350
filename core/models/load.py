"""Load a model and its tokenizer from the demo, a hub id, a folder, a GGUF file, or a pruned model.

Only safetensors and GGUF are read, never a pickle.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PretrainedConfig

from core.devices.lending import rest
from core.devices.picked import pick_device, pick_dtype
from core.devices.spread import planned
from core.errors import ModelError, short
from core.graph.records import Graph
from core.models.actual import check_vocabulary, settle
from core.models.adapters import adapter_folder, left_out, merge
from core.models.configs import read_config
from core.models.early import check_files
from core.models.pretrained import read_pretrained
from core.models.sources import Source, resolve
from core.models.stored import stored_dtype
from core.plan.records import PruningPlan
from core.runs.artifacts import read_graph
from core.spec.model import ModelSpec


@dataclass(frozen=True)
class Loaded:
    """A model that is ready, and what identifies it.

    Attributes:
        plan: the plan of a pruned model, else None; graph: the coupled groups of its first base, which the
            plan is about.
        revision: the commit of a model from the hub, else None.
        folder: the folder with its files; None where the hub's cache is not on this machine's disk.
        stored: the type of the weights there, whatever computes; None where it is not said.
        notes: what was not as the files say, or was left out, in sentences.
    """

    model: Any
    tokenizer: Any
    name: str
    config: PretrainedConfig
    dtype: torch.dtype
    device: torch.device
    plan: PruningPlan | None = None
    revision: str | None = None
    folder: Path | None = None
    stored: torch.dtype | None = None
    graph: Graph | None = None
    notes: tuple[str, ...] = ()


def load(
    source: str = "demo",
    *,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    adapter: str = "",
    device_map: str = "none",
    max_memory: str = "",
    attn_implementation: str = "sdpa",
    resting: bool = False,
) -> Loaded:
    """Load a decoder in evaluation mode, with its tokenizer.

    Args:
        source: `demo`, a hub id, a folder, a `.gguf` file, or a run's directory with a pruned model.
        device: auto, cpu, cuda, cuda:0 or mps.
        dtype: auto, float32, bfloat16 or float16.
        trust_remote_code: let a model that brings code of its own run it.
        adapter: one that is merged into the weights, a folder or a hub id; empty for none.
        device_map: none for all weights on the device, auto for as many as fit there.
        max_memory: what devices may hold of the weights then, such as cuda:0=20GiB,cpu=100GiB.
        resting: leave all weights in memory, for whoever brings them to the device himself.

    Raises:
        ModelError: there is no such model, it is not a decoder, or it cannot be read.
        StorageError: no room for weights that rest on disk.
        ArtifactError: the plan of a pruned model is damaged.
    """
    where = pick_device(device)
    precision = pick_dtype(dtype, where)
    resolved, mapped = resolve(source), device_map != "none" and not resting
    first = torch.device("cpu") if mapped or resting else where
    if resolved.kind == "pruned":
        read = _pruned(resolved, source, first, precision, trust_remote_code)
    else:
        read = _dense(resolved, source, first, precision, trust_remote_code)
    model, notes, folder = read.model, list(read.notes), _folder(resolved)
    if adapter:
        model = merge(model, adapter, source)
    notes += settle(model, read.config, precision, source)
    if mapped:
        rest(model, planned(model, where, precision, max_memory))
    if attn_implementation != "sdpa":
        model.set_attn_implementation(attn_implementation)
    stored = stored_dtype(folder, read.config)
    facts = (model.config, precision, where, read.plan, resolved.revision, folder, stored, read.graph)
    return Loaded(model.eval(), read.tokenizer, resolved.name, *facts, notes=tuple(notes))


@dataclass(frozen=True)
class _Read:
    """What the files gave; the config is as they have it."""

    model: Any
    tokenizer: Any
    config: PretrainedConfig
    plan: PruningPlan | None = None
    graph: Graph | None = None
    notes: tuple[str, ...] = ()


def _pruned(source: Source, given: str, device: torch.device, dtype: torch.dtype, trust: bool) -> _Read:
    from core.models import saved

    model, tokenizer, plan = saved.load(
        Path(source.where), device=device, dtype=dtype, trust_remote_code=trust
    )
    if tokenizer is None:
        raise ModelError(f"{given} was saved without a tokenizer; copy the dense model's files beside it.")
    return _Read(model, tokenizer, model.config, plan, read_graph(Path(source.where)))


def _dense(source: Source, given: str, device: torch.device, dtype: torch.dtype, trust: bool) -> _Read:
    config = read_config(source, given, trust)
    tokenizer, folder = _tokenizer(source, given, trust), _folder(source)
    notes = check_vocabulary(tokenizer, config, given, folder)
    model, more = read_pretrained(source, config, given, dtype, trust)
    notes += [*more, *left_out(folder, given)]
    return _Read(model.to(device), tokenizer, config, notes=tuple(notes))  # type: ignore[arg-type]


def _folder(source: Source) -> Path | None:
    """Where the files of a source lie; of a model from the hub, its cache, with the card if there is one."""
    if source.kind != "hub":
        return Path(source.where)
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    with suppress(OSError, ValueError):
        hf_hub_download(source.where, "README.md", revision=source.revision)
    cached = try_to_load_from_cache(source.where, "config.json", revision=source.revision)
    return Path(cached).parent if isinstance(cached, str) else None


def load_config(source: str, trust_remote_code: bool = False) -> PretrainedConfig:
    """The config alone, which must be a decoder's. Raises ModelError."""
    return read_config(resolve(source), source, trust_remote_code)


def check_model(spec: ModelSpec) -> PretrainedConfig:
    """Find out what a model's files say against it without reading its weights; give its config.

    Raises:
        ModelError: as `load`, where config, tokenizer, adapter or the heads of the weights' files say it.
    """
    check_files(spec)
    config = load_config(spec.source, spec.trust_remote_code)
    load_tokenizer(spec.source, spec.trust_remote_code)
    if spec.adapter:
        adapter_folder(spec.adapter)
    return config


def load_tokenizer(source: str, trust_remote_code: bool = False) -> Any:
    """A model's tokenizer alone, without its weights. Raises ModelError."""
    resolved = resolve(source)
    if resolved.kind == "pruned":
        return _tokenizer(resolved, source, trust_remote_code)
    config = read_config(resolved, source, trust_remote_code)
    tokenizer = _tokenizer(resolved, source, trust_remote_code)
    check_vocabulary(tokenizer, config, source, _folder(resolved))
    return tokenizer


def _tokenizer(source: Source, given: str, trust_remote_code: bool) -> Any:
    try:
        return AutoTokenizer.from_pretrained(
            source.where, trust_remote_code=trust_remote_code, **source.arguments()
        )
    except Exception as error:  # what tokenizers raises has no narrower class
        raise ModelError(
            f"{given} has no tokenizer that can be read ({short(error)}); put its files beside the weights."
        ) from error
