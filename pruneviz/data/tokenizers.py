"""Whether two models read text as the same tokens, from their files alone."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from core.errors import ModelError
from pruneviz.data.cards import local_folder

#: Newest form first; a model has one of them.
FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")


def tokenizer_key(source: str) -> str:
    """The same for models with the same vocabulary and merges; empty where no file tells.

    Raises:
        ModelError: the file is damaged.
    """
    folder = local_folder(source)
    file = next((folder / name for name in FILES if (folder / name).is_file()), None) if folder else None
    return _hash(file, file.stat().st_mtime_ns) if file else ""


@lru_cache(maxsize=32)
def _hash(file: Path, changed: int) -> str:
    """Of a `tokenizer.json` only the part that splits words counts: saving again may change the rest."""
    try:
        raw = file.read_bytes()
        if file.name == "tokenizer.json":
            raw = json.dumps(json.loads(raw)["model"], sort_keys=True).encode()
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{file} is damaged ({error}); download the model again.") from error
    return hashlib.sha256(raw).hexdigest()
