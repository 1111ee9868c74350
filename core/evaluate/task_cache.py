"""Finished tasks on disk, under what they were measured on and how, so that nothing is measured twice."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from core.errors import ArtifactError
from core.files import read_record, write_json
from core.results.tasks import TaskResult

logger = logging.getLogger(__name__)
_INCIDENTAL = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
_PROBE_TOKENS = 16


def fingerprint(model: Any, tokenizer: Any) -> str:
    """Hash what decides an answer: structure, weights, buffers, hooks and tokenizer.

    Paths and names play no part, so a model that is saved and loaded again keeps its hash.
    """
    import torch

    digest = hashlib.sha256()
    config = {key: value for key, value in model.config.to_dict().items() if key not in _INCIDENTAL}
    digest.update(json.dumps([config, repr(model)], sort_keys=True, default=str).encode())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().reshape(-1).cpu().contiguous()
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    if _hooked(model):
        digest.update(_probe(model))
    digest.update(_tokenizer_text(tokenizer).encode())
    return digest.hexdigest()


def _tokenizer_text(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return json.dumps([repr(tokenizer), sorted(tokenizer.get_vocab().items())])
    text = str(backend.to_str())
    # truncation and padding stand before this; every call switches them
    return text[text.index('"added_tokens"') :]


def _hooked(model: Any) -> bool:
    """Whether hooks, such as masks, may change the results, so that weights do not identify the model."""
    return any(
        module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
        for module in model.modules()
    )


def _probe(model: Any) -> memoryview:
    """The logits of a few tokens, exactly: on other machines the hash may differ, but never wrongly agree."""
    import torch

    ids = torch.arange(_PROBE_TOKENS, device=model.device)[None] % model.get_input_embeddings().num_embeddings
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits
    return memoryview(logits.float().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


@dataclass(frozen=True)
class _Entry:
    key: dict[str, Any]
    result: TaskResult


class ResultCache:
    """Results in a folder, one JSON file each; without a folder nothing is saved."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def read(self, key: dict[str, Any]) -> TaskResult | None:
        """The result under this key. A damaged file counts as absent; the next result replaces it."""
        file = self._file(key)
        if file is None or not file.is_file():
            return None
        try:
            entry = read_record(file, _Entry, "the task is run again")
        except ArtifactError as error:
            logger.warning("%s", error)
            return None
        return replace(entry.result, cached=True) if entry.key == key else None

    def write(self, key: dict[str, Any], result: TaskResult) -> None:
        """Save a result. Raises StorageError."""
        file = self._file(key)
        if file is not None:
            write_json(file, {"key": key, "result": asdict(result)})

    def _file(self, key: dict[str, Any]) -> Path | None:
        if self.folder is None:
            return None
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{key['task']}-{digest[:16]}.json"
