"""A GGUF, converted once into the user's cache: a folder in the hub's layout, which loads much faster."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from core.cache import OnProgress, cache_folder, once, progress
from core.errors import UNREADABLE, ModelError, short

_SAMPLE_BYTES = 2**20
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_STEPS = 3
#: What weights are kept in: those of a quantised file as they come out, exactly.
_KEPT = {"F16": "float16", "BF16": "bfloat16"}


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
    """
    if part := _PART.search(gguf.name):
        raise ModelError(
            f"{gguf} is part {int(part[1])} of {int(part[2])}; put the parts together first "
            "(llama-gguf-split --merge), and give that file."
        )
    return cache_folder() / f"{gguf.stem}-{_fingerprint(gguf)}"


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
    from gguf import GGUFReader

    try:
        reader = GGUFReader(str(gguf))
        told = {name: reader.get_field(f"general.{name}") for name in ("name", "license")}
        facts = {name: field.contents() for name, field in told.items() if field is not None}
        counts: Counter[str] = Counter()
        for tensor in reader.tensors:
            counts[tensor.tensor_type.name] += int(tensor.n_elements)
        kept = _KEPT.get(counts.most_common(1)[0][0] if counts else "", "float32")
    except UNREADABLE as error:
        raise ModelError(f"{gguf} cannot be read as a GGUF model: {short(error)}.") from error
    convert(gguf, folder, on_progress, dtype=kept)
    licence = f"---\nlicense: {facts['license']}\n---\n" if facts.get("license") else ""
    said = f"{licence}{facts.get('name', gguf.stem)}, converted from {gguf.name}.\n"
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
