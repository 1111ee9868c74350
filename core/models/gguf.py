"""A GGUF, converted once into the user's cache: a folder in the hub's layout, which loads much faster."""

from __future__ import annotations

import hashlib
import json
import mmap
import re
import shutil
import struct
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from core.cache import OnProgress, cache_folder, once, progress
from core.errors import UNREADABLE, ModelError, StorageError, short

_SAMPLE_BYTES = 2**20
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_STEPS = 3
#: Number of a GGUF's type -> what weights are kept in: those of a quantised file as they come out, exactly.
_KEPT = {1: "float16", 30: "bfloat16"}
_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
#: How a GGUF's values are packed, by the number of their type; texts and lists are not in it.
_VALUES = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9


def gguf_folder(gguf: Path) -> Path:
    """The model of a GGUF in the hub's layout; the first call converts it.

    Raises:
        ModelError: the file cannot be read, or is one of several parts.
        StorageError: the cache cannot be written.
    """
    folder = check_gguf(gguf)
    if not folder.is_dir():
        once(folder, lambda beside: _convert(gguf, beside, progress(gguf.name)))
    return folder


def check_gguf(gguf: Path) -> Path:
    """Where in the cache the model of a GGUF belongs; it may be there already.

    Raises:
        ModelError: the file cannot be read, or is one of several parts.
        StorageError: the cache has no room for it.
    """
    if part := _PART.search(gguf.name):
        raise ModelError(
            f"{gguf} is part {int(part[1])} of {int(part[2])}; put the parts together first "
            "(llama-gguf-split --merge), and give that file."
        )
    folder = cache_folder() / f"{gguf.stem}-{_fingerprint(gguf)}"
    if not folder.is_dir():
        _require_room(gguf, read_head(gguf))
    return folder


@dataclass(frozen=True)
class Head:
    """What the beginning of a GGUF says.

    Attributes:
        facts: texts about the model, by their keys.
        counts: type of numbers, as GGUF numbers them -> how many there are.
    """

    facts: dict[str, str]
    counts: Counter[int]

    @property
    def dtype(self) -> str:
        """What its weights are kept in."""
        return _KEPT.get(self.counts.most_common(1)[0][0] if self.counts else 0, "float32")


class _Bytes:
    """A file from its beginning, value by value. Raises struct.error or ValueError at its end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def number(self, code: str) -> Any:
        """The next number, packed as the `struct` module names it."""
        (value,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(f"<{code}")
        return value

    def text(self) -> str:
        """The next text."""
        length = self.number("Q")
        self.skip(length)
        return self.data[self.at - length : self.at].decode("utf-8", errors="replace")

    def skip(self, length: int) -> None:
        """Go on so many bytes further."""
        self.at += length
        if self.at > len(self.data):
            raise ValueError("it ends before its head does")

    def value(self, kind: int) -> Any:
        """The next value of a type; of a list nothing is kept."""
        if kind == _TEXT:
            return self.text()
        if kind != _LIST:
            return self.number(_VALUES[kind])
        inner, length = self.number("I"), self.number("Q")
        if inner in _VALUES:
            self.skip(struct.calcsize(f"<{_VALUES[inner]}") * length)
        else:
            for _ in range(length):
                self.value(inner)
        return None


def read_head(gguf: Path) -> Head:
    """What the beginning of a GGUF says, much sooner than the `gguf` package reads it. Raises ModelError."""
    try:
        with gguf.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            read = _Bytes(data)
            if read.number("4s") != b"GGUF" or not 2 <= read.number("I") <= 3:
                raise ValueError("it does not begin as a GGUF of version 2 or 3 does")
            tensors, values = read.number("Q"), read.number("Q")
            facts = {read.text(): read.value(read.number("I")) for _ in range(values)}
            counts: Counter[int] = Counter()
            for _ in range(tensors):
                read.text()
                size = prod(read.number("Q") for _ in range(read.number("I")))
                counts[read.number("I")] += size
                read.skip(8)  # where its numbers are
    except (OSError, ValueError, KeyError, RecursionError, MemoryError, struct.error) as error:
        raise ModelError(f"{gguf} cannot be read as a GGUF model: {short(error)}.") from error
    return Head({key: value for key, value in facts.items() if isinstance(value, str)}, counts)


def _require_room(gguf: Path, head: Head) -> None:
    """Raises StorageError where the cache's disk has no room for the weights as plain numbers."""
    cache = cache_folder()
    disk = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
    free, size = shutil.disk_usage(disk).free, head.counts.total() * _BYTES[head.dtype]
    if size > free:
        raise StorageError(
            f"{gguf} would be {size / 1e9:,.1f} GB in {cache}, in {head.dtype}, and {free / 1e9:,.1f} GB are "
            "free there: free some space, or set PRUNEVIZ_CACHE to another folder."
        )


def _fingerprint(gguf: Path) -> str:
    """Tells files apart by size, time, head, middle and end; a file changed in place is another one."""
    try:
        facts, digest = gguf.stat(), hashlib.sha256()
        digest.update(f"{facts.st_size}:{facts.st_mtime_ns};".encode())
        with gguf.open("rb") as file:
            for start in (0, facts.st_size // 2, max(0, facts.st_size - _SAMPLE_BYTES)):
                file.seek(start)
                digest.update(file.read(_SAMPLE_BYTES))
    except OSError as error:
        raise ModelError(f"{gguf} cannot be read: {error}; give a file that you may read.") from error
    return digest.hexdigest()[:16]


def _convert(gguf: Path, folder: Path, on_progress: OnProgress) -> None:
    head = read_head(gguf)
    convert(gguf, folder, on_progress, dtype=head.dtype)
    name, licence = (head.facts.get(f"general.{key}", "") for key in ("name", "license"))
    licence = f"---\nlicense: {licence}\n---\n" if licence else ""
    said = f"{licence}{name or gguf.stem}, converted from {gguf.name}.\n"
    (folder / "README.md").write_text(said, encoding="utf-8")


def convert(gguf: Path, folder: Path, on_progress: OnProgress, *, dtype: str = "float32") -> None:
    """Write a GGUF as safetensors with tokenizer, chat template and generation config.

    Raises ModelError, and OSError where the folder cannot be written.
    """
    from transformers import AutoTokenizer

    on_progress(0, _STEPS)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        on_progress(1, _STEPS)
        model = read(gguf, dtype=dtype)
    except UNREADABLE as error:
        raise ModelError(f"{gguf} cannot be read as a GGUF model: {short(error)}.") from error
    on_progress(2, _STEPS)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _forget_tokens(folder / "tokenizer.json", model.get_input_embeddings().weight.shape[0])
    on_progress(_STEPS, _STEPS)


def _forget_tokens(path: Path, rows: int) -> None:
    """Leave out tokens that are in no GGUF: transformers adds some that others of the kind have."""
    written = json.loads(path.read_text(encoding="utf-8"))
    written["added_tokens"] = [token for token in written["added_tokens"] if token["id"] < rows]
    path.write_text(json.dumps(written, ensure_ascii=False), encoding="utf-8")


def read(gguf: Path, **arguments: Any) -> Any:
    """Load a GGUF as a plain model; as transformers loads it, it cannot be saved."""
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    model, report = loader.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, output_loading_info=True, **arguments
    )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{gguf} lacks {len(missing)} of the model's weights, first {missing[0]}.")
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model
