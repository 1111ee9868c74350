"""Load a model and its tokenizer from the demo, a hub id, a folder, a GGUF file, or a pruned model.

Only safetensors and GGUF are read, never a pickle.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from core.errors import ModelError
from core.graph.records import Graph
from core.models.sources import Source, resolve
from core.models.stored import stored_dtype
from core.models.unreadable import UNREADABLE, short, unreadable
from core.plan.records import PruningPlan
from core.runs.artifacts import read_graph


@dataclass(frozen=True)
class Loaded:
    """A model that is ready, and what identifies it.

    Attributes:
        plan: the plan of a pruned model, else None; graph: the coupled groups of its first base, which the
            plan is about.
        revision: the commit of a model from the hub, else None.
        folder: the folder with its files; None where the hub's cache is not on this machine's disk.
        stored: the type of the weights there, whatever computes; None where it is not said.
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


def load(
    source: str = "demo",
    *,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    attn_implementation: str = "sdpa",
) -> Loaded:
    """Load a decoder in evaluation mode, with its tokenizer.

    Args:
        source: `demo`, a hub id, a folder, a `.gguf` file, or a run's directory with a pruned model.
        device: auto, cpu, cuda, cuda:0 or mps.
        dtype: auto, float32, bfloat16 or float16.
        trust_remote_code: let a model that brings code of its own run it.

    Raises:
        ModelError: there is no such model, it is not a decoder, or it cannot be read.
        ArtifactError: the plan of a pruned model is damaged.
    """
    where = pick_device(device)
    precision = pick_dtype(dtype, where)
    resolved = resolve(source)
    plan: PruningPlan | None = None
    graph: Graph | None = None
    if resolved.kind == "pruned":
        from core.models import saved

        model, tokenizer, plan = saved.load(
            Path(resolved.where), device=where, dtype=precision, trust_remote_code=trust_remote_code
        )
        graph = read_graph(Path(resolved.where))
        if tokenizer is None:
            raise ModelError(
                f"{source} was saved without a tokenizer; copy the dense model's files beside it."
            )
    else:
        config = _config(resolved, source, trust_remote_code)
        tokenizer = _tokenizer(resolved, source, trust_remote_code)
        model = _weights(resolved, source, precision, trust_remote_code).to(where)
    if attn_implementation != "sdpa":
        model.set_attn_implementation(attn_implementation)
    folder = _folder(resolved)
    stored = stored_dtype(folder, model.config if plan else config)
    facts = (model.config, precision, where, plan, resolved.revision, folder, stored, graph)
    return Loaded(model.eval(), tokenizer, resolved.name, *facts)


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
    return _config(resolve(source), source, trust_remote_code)


def _config(source: Source, given: str, trust_remote_code: bool) -> PretrainedConfig:
    try:
        config = AutoConfig.from_pretrained(
            source.where, trust_remote_code=trust_remote_code, **source.arguments()
        )
    except UNREADABLE as error:
        raise unreadable(given, error) from error
    check_decoder(config, given)
    return config


def check_decoder(config: PretrainedConfig, given: str) -> None:
    """Raise ModelError for an encoder, with or without a decoder."""
    kind = config.model_type
    remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    masked = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and getattr(config, "is_decoder", None) is False
    if config.is_encoder_decoder:
        problem = "an encoder with a decoder (sequence to sequence)"
    elif masked or not (remote or kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        problem = "an encoder, or another model that does not predict the next token"
    else:
        return
    name = ", ".join(config.architectures or []) or type(config).__name__
    raise ModelError(
        f"{given} is {name} ({kind}): {problem}. Only decoders that predict the next token are accepted, "
        "those that AutoModelForCausalLM loads, for example Llama, Mistral, Qwen or GPT-2."
    )


def load_tokenizer(source: str, trust_remote_code: bool = False) -> Any:
    """A model's tokenizer alone, without its weights. Raises ModelError."""
    return _tokenizer(resolve(source), source, trust_remote_code)


def _tokenizer(source: Source, given: str, trust_remote_code: bool) -> Any:
    try:
        return AutoTokenizer.from_pretrained(
            source.where, trust_remote_code=trust_remote_code, **source.arguments()
        )
    except UNREADABLE as error:
        raise ModelError(
            f"{given} has no tokenizer that can be read ({short(error)}); put its files beside the weights."
        ) from error


def _weights(source: Source, given: str, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    if source.kind == "folder":
        _refuse_pickles(Path(source.where))
    loader: Any = AutoModelForCausalLM
    try:
        model, report = loader.from_pretrained(
            source.where,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
            **source.arguments(),
        )
    except UNREADABLE as error:
        raise unreadable(given, error) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{given} lacks {len(missing)} of the model's weights, first {missing[0]}; "
            "give a complete decoder checkpoint."
        )
    return model


def _refuse_pickles(folder: Path) -> None:
    """Raise ModelError if a folder has its weights in pickles only."""
    pickled = sorted(file.name for end in ("bin", "pt", "pth", "ckpt") for file in folder.glob(f"*.{end}"))
    if pickled and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} has its weights in {pickled[0]} only, a pickle, which can run code when it is read; "
            "save the model as safetensors, as save_pretrained of transformers does, and give that folder."
        )


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA, else MPS, else the CPU. Raises ModelError for a device that is not here."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"Unknown device '{name}'; write auto, cpu, cuda, cuda:0 or mps.") from error
    count = {"cpu": 1, "cuda": torch.cuda.device_count() if cuda else 0, "mps": int(mps)}.get(device.type, 0)
    if (device.index or 0) >= count:
        present = ["cpu"] + ["cuda"] * cuda + ["mps"] * mps
        raise ModelError(f"Device '{name}' is not here; this machine has {', '.join(present)}. Write auto.")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on CUDA and float32 elsewhere. Raises ModelError."""
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in names:
        raise ModelError(f"Unknown dtype '{name}'; write auto, {', '.join(names)}.")
    return names[name]
