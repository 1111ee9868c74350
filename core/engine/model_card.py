"""A model's card, a plain dict for people: shape, size, device, and where the model comes from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from core.evaluate.efficiency import weights_bytes
from core.graph.classes import build
from core.models.card_head import read_head
from core.models.load import Loaded, load_config
from core.models.sources import resolve

#: Names in the config; the value is None where a family has no such number.
_SHAPE = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "tie_word_embeddings",
)
_SAMPLE_BYTES = 2**16


def describe(loaded: Loaded, source: str) -> dict[str, Any]:
    """The card of a model in memory."""
    return {
        **_shape(loaded.config),
        "source": source,
        "name": loaded.name,
        "params": sum(parameter.numel() for parameter in loaded.model.parameters()),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "device": str(loaded.device),
        "memory_gib": weights_bytes(loaded.model) / 2**30,
        "pruned": loaded.plan is not None,
        "chat_template": bool(getattr(loaded.tokenizer, "chat_template", None)),
        "revision": loaded.revision,
        **_files(loaded.folder),
    }


def describe_config(source: str) -> dict[str, Any]:
    """The card of a model whose weights are not loaded; for a pruned one it gives the shape before.

    Raises:
        ModelError: as `core.models.load.load_config`.
    """
    config, resolved = load_config(source), resolve(source)
    params = None
    if resolved.kind != "pruned":
        with torch.device("meta"):
            params = sum(p.numel() for p in build(config).parameters())
    return {
        **_shape(config),
        "source": source,
        "name": resolved.name,
        "params": params,
        "pruned": resolved.kind == "pruned",
        "revision": resolved.revision,
        **_files(Path(resolved.where) if resolved.kind != "hub" else None),
    }


def _shape(config: PretrainedConfig) -> dict[str, Any]:
    text = config.get_text_config()
    shape = {name: getattr(text, name, None) for name in _SHAPE}
    heads, hidden = shape["num_attention_heads"], shape["hidden_size"]
    shape["num_key_value_heads"] = shape["num_key_value_heads"] or heads
    if not shape["head_dim"] and isinstance(heads, int) and isinstance(hidden, int):
        shape["head_dim"] = hidden // heads
    name = (config.architectures or [type(config).__name__])[0]
    return {"family": config.model_type, "architecture": name, **shape}


def _files(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {"licence": None, "weights_sha256": None}
    return {"licence": read_head(folder).get("license"), "weights_sha256": fingerprint(folder)}


def fingerprint(folder: Path) -> str | None:
    """A hash to tell weights apart: of the size, head, middle and end of each file, not of all of it."""
    files = sorted(folder.glob("*.safetensors"))
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size};".encode())
        with path.open("rb") as file:
            for start in (0, size // 2, max(0, size - _SAMPLE_BYTES)):
                file.seek(start)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest() if files else None
