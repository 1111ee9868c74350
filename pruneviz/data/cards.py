"""Describe a model without loading it: from its config and the headers of its weight files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.errors import ArtifactError, ModelError, PruneError
from core.files import DAMAGES, read_json
from core.runs.artifacts import MODEL, SPEC

#: Our word -> the names configs use for it, the common one first.
_NAMES: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "ffn": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "multi_query_group_num"),
    "head_dim": ("head_dim", "kv_channels"),
    "vocab": ("vocab_size",),
    "context": ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len"),
}
#: What weights end in; pickles count too, so that the message about them is the engine's own.
WEIGHTS = ("safetensors", "bin", "pt", "pth", "ckpt")


@dataclass(frozen=True)
class Card:
    """What a model is. Unknown numbers are None.

    Attributes:
        params: numbers in its weight files; tied output weights are counted once, as they are stored.
        stored_bytes, stored_dtype: the weight files.
        device, dtype, memory_gib: as loaded in the engine, empty or None until then.
        refusal: why it cannot be read, or its config says that it cannot be pruned, for people; or empty.
        access: who may have it from the hub; empty for what is here.
        bare: a config is here and no weights; `params` are then counted by the engine alone.
    """

    source: str
    name: str
    family: str = ""
    architecture: str = ""
    layers: int | None = None
    hidden: int | None = None
    ffn: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    vocab: int | None = None
    context: int | None = None
    tied: bool | None = None
    chat_template: bool | None = None
    licence: str = ""
    params: int | None = None
    stored_bytes: int | None = None
    stored_dtype: str = ""
    device: str = ""
    dtype: str = ""
    memory_gib: float | None = None
    refusal: str = ""
    access: str = ""
    bare: bool = False


def local_folder(source: str) -> Path | None:
    """The folder a source's files lie in, or None for a hub id, a .gguf file, or a demo not prepared yet."""
    if source == "demo":
        from core.cache import cache_folder
        from core.models.demo import DEMO_NAME

        configs = sorted(cache_folder().glob(f"{DEMO_NAME}-*/config.json"))
        return configs[-1].parent if configs else None
    path = Path(source).expanduser()
    path = path.parent if path.name == "config.json" and path.is_file() else path
    if (path / SPEC).is_file():
        path = path / MODEL
    return path if (path / "config.json").is_file() else None


def weightless(source: str) -> bool:
    """Whether the files hold a config but no weights: such a model can only be looked at."""
    folder = local_folder(source)
    return folder is not None and not any(any(folder.glob(f"*.{end}")) for end in WEIGHTS)


def read_card(source: str) -> Card | None:
    """The card of a model from its files; None where only the engine can tell.

    Raises:
        ModelError: config.json is damaged.
    """
    folder = local_folder(source)
    if folder is None:
        return None
    name = folder.name if source != "demo" else folder.name.rpartition("-")[0]
    if folder.name == MODEL:
        name = folder.parent.name
    try:
        config = read_json(folder / "config.json")
        card = card_from_config(source, name, config)
    except (PruneError, *DAMAGES) as error:
        raise ModelError(f"{folder / 'config.json'} cannot be read; download the model again.") from error
    params, size, dtype = stored_weights(folder)
    stored: dict[str, Any] = {"params": params, "stored_bytes": size, "stored_dtype": dtype}
    stored["bare"] = weightless(source)
    return replace(card, **stored, chat_template=_has_chat_template(folder), refusal=refusal_of(config, name))


def refusal_of(config: dict[str, Any], name: str) -> str:
    """Why a config says that its model cannot be pruned, for people; empty if it does not."""
    from core.models.configs import check_values

    try:
        check_values(config, name)
    except ModelError as error:
        return str(error)
    if config.get("is_encoder_decoder") is True:
        return (
            f"{name} is an encoder with a decoder; only decoders that predict the next token can be pruned."
        )
    return ""


def card_from_config(source: str, name: str, config: dict[str, Any]) -> Card:
    """Read the shape of a decoder out of its config."""
    text = config.get("text_config")
    inner: dict[str, Any] = text if isinstance(text, dict) else config
    shape: dict[str, Any] = {}
    for word, names in _NAMES.items():
        values = [inner[key] for key in names if isinstance(inner.get(key), int)]
        shape[word] = values[0] if values else None
    if shape["kv_heads"] is None:
        shape["kv_heads"] = shape["heads"]
    if shape["head_dim"] is None and shape["hidden"] and shape["heads"]:
        shape["head_dim"] = shape["hidden"] // shape["heads"]
    classes = config.get("architectures") or [""]
    return Card(
        source, name, family=str(config.get("model_type", "")), architecture=str(classes[0]),
        tied=bool(inner.get("tie_word_embeddings", config.get("tie_word_embeddings", True))), **shape,
    )  # fmt: skip


def card_from_engine(source: str, answer: dict[str, Any]) -> Card:
    """The engine's card, joined with what the files say."""
    on_disk = read_card(source) or Card(source, str(answer.get("name") or source))
    fresh = {
        "params": answer.get("params"),
        "licence": answer.get("licence") or "",
        "device": str(answer.get("device") or ""),
        "dtype": str(answer.get("dtype") or "").removeprefix("torch."),
        "memory_gib": answer.get("memory_gib"),
    }
    shape = card_from_config(
        source, on_disk.name, {**answer, "architectures": [answer.get("architecture") or ""]}
    )
    merged = {key: value for key, value in shape.__dict__.items() if value not in (None, "")}
    merged |= {key: value for key, value in on_disk.__dict__.items() if value not in (None, "")}
    return Card(**{**merged, **{key: value for key, value in fresh.items() if value not in (None, "")}})


def stored_weights(folder: Path) -> tuple[int | None, int | None, str]:
    """Numbers, bytes and dtypes in the folder's safetensors files, from their headers alone."""
    files = sorted(folder.glob("*.safetensors"))
    params, dtypes = 0, set()
    for file in files:
        counts = _numbers(file)
        params += counts.total()
        dtypes |= set(counts)
    if not files:
        return None, None, ""
    return params, sum(file.stat().st_size for file in files), ", ".join(sorted(dtypes))


def _numbers(file: Path) -> Counter[str]:
    """How many numbers of each type a file holds. Raises ModelError."""
    from core.models.early import numbers

    try:
        return numbers(file)
    except ArtifactError as error:
        raise ModelError(str(error)) from error


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and "chat_template" in path.read_text(encoding="utf-8", errors="replace")
