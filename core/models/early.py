"""What a model's files say against it, found without torch in a second: at launch, before there is a run.

The page refuses by it what a run would refuse, in the same words; the command line asks it first, too.
"""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from core.errors import ArtifactError, ModelError, unreadable
from core.files import DAMAGES, MOST_BYTES, read_json, sound
from core.models.adapters import WEIGHTS as ADAPTER
from core.models.adapters import check_adapter
from core.models.configs import check_values, method_of_quantising, quantised, refuse_encoder, texts
from core.models.gguf import check_gguf
from core.models.sources import Source, at_hand
from core.spec.model import ModelSpec

#: Tensor name -> type of its numbers, as safetensors calls it, and shape.
Header = dict[str, tuple[str, tuple[int, ...]]]
#: What transformers reads the weights from: one file, or several that this index names.
_WHOLE = "model.safetensors"
_INDEX = f"{_WHOLE}.index.json"
#: Types of numbers that only quantised weights have.
_PACKED = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "F8_E4M3", "F8_E5M2", "F4", "F8_E8M0")
#: From this share on, packed numbers are weights, not indices beside them.
_MOST_PACKED = 0.2
#: A model of this many times what is stored is none of these weights (shared ones are stored once).
MOST_MISSING = 4
#: Any file of a tokenizer has one of these in its name, unless code that comes with the model names others.
_TOKENIZERS = ("tokenizer", "vocab", "spiece", "merges", "tiktoken", "spm", "bpe")


def check_files(spec: ModelSpec, *, weights: bool = True) -> dict[str, Any]:
    """Find out what files at hand say against a model; give the values of its config.

    Of the demo and of what lies on the hub nothing is read: that is left to the run. No value then.

    Args:
        weights: whether the weights and the tokenizer will be read.

    Raises:
        ModelError: as `load`, where config, tokenizer, adapter or the heads of the weights' files say it.
        StorageError: no room for a GGUF in the cache.
    """
    if weights and spec.adapter and Path(spec.adapter).expanduser().exists():
        check_adapter(Path(spec.adapter).expanduser(), spec.adapter)
    source = at_hand(spec.source)
    if source is None:
        if (path := Path(spec.source).expanduser()).is_file():
            check_gguf(path)
        return {}
    values = _config(Path(source.where), spec.source)
    if weights:
        _check_pieces(source, values, spec.source)
    return values


def _config(folder: Path, given: str) -> dict[str, Any]:
    try:
        values = sound(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except DAMAGES as error:
        raise unreadable(given, ValueError(f"its config.json is not a valid JSON file: {error}")) from error
    if not isinstance(values, dict):
        raise unreadable(given, ValueError("its config.json is not a valid JSON object"))
    check_values(values, given)
    refuse_encoder(values, given)
    return values


def _check_pieces(source: Source, values: Mapping[str, Any], given: str) -> None:
    folder = Path(source.where)
    counts = check_stored(folder, values, given)
    if source.kind == "folder" and not values.get("auto_map"):  # such code may read its config otherwise
        _check_layers(values, sum(counts.values()), given)
        _check_rows(folder, values, given)
    check_tokenizer(folder, values, given)


def header(path: Path) -> Header:
    """The tensors of a file of safetensors, by its head alone. Raises ArtifactError."""
    try:
        if not path.is_file():  # a link to one will do; a pipe would never end
            raise ValueError("it is no file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 8:
                raise ValueError(f"it has no header, only {size} bytes")
            (length,) = struct.unpack("<Q", file.read(8))
            if not 0 < length <= min(size - 8, MOST_BYTES):
                raise ValueError(f"its header would have {length:,} bytes, the file has {size:,}")
            entries = sound(json.loads(file.read(length)))
        entries.pop("__metadata__", None)
        told = {name: (str(each["dtype"]), tuple(map(int, each["shape"]))) for name, each in entries.items()}
        if any(size < 0 for _, shape in told.values() for size in shape):
            raise ValueError("its header has a shape below zero")
        end = 8 + length + max((int(each["data_offsets"][1]) for each in entries.values()), default=0)
        if end != size:
            raise ValueError(f"its header tells of {end:,} bytes, the file has {size:,}")
    except (*DAMAGES, IndexError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); download the model again.") from error
    return told


def numbers(path: Path) -> Counter[str]:
    """How many numbers of each type a file holds, by its head. Raises ArtifactError."""
    counts: Counter[str] = Counter()
    for dtype, shape in header(path).values():
        counts[dtype] += prod(shape)
    return counts


def check_stored(folder: Path, values: Mapping[str, Any], given: str) -> Counter[str]:
    """How many numbers of each type a folder holds. Raises ModelError where they cannot be pruned."""
    _refuse_pickles(folder)
    _refuse_absent(folder, given)
    counts: Counter[str] = Counter()
    for path in weight_files(folder):
        try:
            counts.update(numbers(path))
        except ArtifactError as error:
            raise unreadable(
                given, ValueError(f"{path.name} is damaged, {error.__cause__ or error}")
            ) from error
    _refuse_unscaled(folder, given)
    packed = {name: counts[name] for name in _PACKED if counts[name]}
    if method_of_quantising(values) is None and sum(packed.values()) > _MOST_PACKED * sum(counts.values()):
        raise quantised(given, f"most are {max(packed, key=packed.__getitem__)}")
    return counts


def _refuse_unscaled(folder: Path, given: str) -> None:
    """Raise ModelError for weights in 8 bits whose scales are not called as those that are read.

    AutoFP8 and others call them `weight_scale`, one for a matrix: left out, the weights would be others.
    """
    told: Header = {}
    for path in weight_files(folder):
        told |= header(path)
    for name in sorted(name for name, (kind, _) in told.items() if kind.startswith("F8_E")):
        if f"{name}_scale" in told and f"{name}_scale_inv" not in told:
            raise quantised(given, f"fp8 with scales as in {name}_scale")


def weight_files(folder: Path) -> list[Path]:
    """The files with a model's weights, those of an adapter left out."""
    return sorted(path for path in folder.glob("*.safetensors") if path.name != ADAPTER)


def _refuse_pickles(folder: Path) -> None:
    """Raise ModelError if a folder has its weights in pickles, or in a GGUF, only."""
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(file.name for end in ("bin", "pt", "pth", "ckpt") for file in folder.glob(f"*.{end}"))
    if pickled:
        raise ModelError(
            f"{folder} has its weights in {pickled[0]} only, a pickle, which can run code when it is read; "
            "save the model as safetensors, as save_pretrained of transformers does, and give that folder."
        )
    for file in sorted(folder.glob("*.gguf")):
        raise ModelError(f"{folder} has its weights in a GGUF; give the file {file} instead.")


def _refuse_absent(folder: Path, given: str) -> None:
    """Raise ModelError if a folder lacks the file of its weights, or one that their index names."""
    index = folder / _INDEX
    if (folder / _WHOLE).exists():
        return
    if not index.is_file():
        others = ", ".join(path.name for path in weight_files(folder)[:3])
        seen = f" (there is {others})" if others else ""
        raise unreadable(given, ValueError(f"there is no {_WHOLE} and no {_INDEX} in it{seen}"))
    try:
        names = {str(name) for name in read_json(index)["weight_map"].values()}
    except (ArtifactError, *DAMAGES) as error:
        raise unreadable(given, ValueError(f"{_INDEX} is damaged")) from error
    if outside := sorted(name for name in names if Path(name).name != name):
        raise unreadable(given, ValueError(f"{_INDEX} names {outside[0]!r}, which is no file of this folder"))
    if absent := sorted(name for name in names if not (folder / name).exists()):
        missing = f"{len(absent)} of the {len(names)} files of its weights are missing, first {absent[0]}"
        raise unreadable(given, ValueError(missing))


def _check_layers(values: Mapping[str, Any], stored: int, given: str) -> None:
    """Raise ModelError where the layers alone are far more than is stored: each has one square matrix."""
    for part in texts(values):
        layers = _first(part, "num_hidden_layers", "n_layer") or 0
        least = layers * (_first(part, "hidden_size", "n_embd", "d_model") or 0) ** 2
        if least > MOST_MISSING * stored:
            raise too_few(given, stored, f"at least {least:,}")


def too_few(given: str, stored: int, wanted: str) -> ModelError:
    """The error for a config that describes far more than the weights are."""
    return ModelError(
        f"{given} has {stored:,} numbers in its weights, and its config describes a model of {wanted}; "
        "give the config that belongs to these weights."
    )


def _check_rows(folder: Path, values: Mapping[str, Any], given: str) -> None:
    """Raise ModelError where no weight has as many rows as there are tokens: then none is the embedding."""
    rows = [part["vocab_size"] for part in texts(values) if type(part.get("vocab_size")) is int]
    heads = (header(path) for path in weight_files(folder))
    shapes = {name: shape for head in heads for name, (_, shape) in head.items() if len(shape) == 2}
    if not rows or not shapes or any(size in rows for shape in shapes.values() for size in shape):
        return
    name = max(shapes, key=lambda name: prod(shapes[name]))
    raise ModelError(
        f"{given} has a config of {rows[-1]:,} tokens (vocab_size), and no weight has as many rows: "
        f"the largest, {name}, is {shapes[name][0]:,} x {shapes[name][1]:,}. "
        "Give the config that belongs to these weights."
    )


def _first(values: Mapping[str, Any], *names: str) -> int | None:
    return next((values[name] for name in names if type(values.get(name)) is int), None)


def check_tokenizer(folder: Path, values: Mapping[str, Any], given: str) -> None:
    """Raise ModelError where a folder has no tokenizer, or one whose tokens the embedding has no rows for."""
    path, rows = folder / "tokenizer.json", None
    for part in texts(values):
        rows = _first(part, "vocab_size") or rows
    if not path.is_file():
        if values.get("auto_map") or any(_of_tokens(each.name) for each in folder.iterdir()):
            return
        raise ModelError(
            f"{given} has no tokenizer that can be read (no file of one is in it); "
            "put its files beside the weights."
        )
    try:
        tokens = tokens_of(path)
        senses = _senses(folder / "tokenizer_config.json")
    except DAMAGES as error:
        raise ModelError(
            f"{given} has no tokenizer that can be read ({path.name} is damaged); "
            "put its files beside the weights."
        ) from error
    beyond = {name: number for name, number in tokens.items() if rows is not None and number >= rows}
    if strange := set(beyond) - senses:
        raise too_many_tokens(given, rows or 0, tokens, strange)


def _of_tokens(name: str) -> bool:
    return name.endswith(".model") or any(part in name for part in _TOKENIZERS)


def tokens_of(path: Path) -> dict[str, int]:
    """The tokens that a `tokenizer.json` names, with their numbers. Raises one of DAMAGES."""
    written = json.loads(path.read_text(encoding="utf-8"))
    told = written["model"].get("vocab", {})
    tokens = dict(told) if isinstance(told, dict) else {entry[0]: number for number, entry in enumerate(told)}
    tokens |= {token["content"]: token["id"] for token in written.get("added_tokens") or ()}
    if not all(type(number) is int and number >= 0 for number in tokens.values()):
        raise ValueError("a token has no number")
    return tokens


def _senses(path: Path) -> set[str]:
    """Tokens for a picture, a film or sound, by the names that a tokenizer's config gives them."""
    if not path.is_file():
        return set()
    told = json.loads(path.read_text(encoding="utf-8"))
    named = dict(told)
    for name, value in told.items():
        if "special_tokens" in name and isinstance(value, dict):
            named |= value
    each = {name: value["content"] if isinstance(value, dict) and "content" in value else value
            for name, value in named.items()}  # fmt: skip
    return {value for name, value in each.items() if isinstance(value, str) and of_other_senses(name)}


def of_other_senses(name: str) -> bool:
    """Whether a special token of this name stands for no text: Gemma 3's text models have one, too."""
    return any(sense in name for sense in ("image", "boi", "eoi", "video", "audio", "vision"))


def too_many_tokens(given: str, rows: int, tokens: Mapping[str, int], strange: set[str]) -> ModelError:
    """The error for a tokenizer that makes tokens which the model does not have."""
    return ModelError(
        f"{given} has {rows:,} rows in its embedding, but its tokenizer has tokens up to number "
        f"{max(tokens.values()):,}, first {min(strange, key=tokens.__getitem__)!r}; put the tokenizer beside "
        "it that it was trained with, or give it rows for the new tokens (resize_token_embeddings) and train."
    )
