"""Models that are made once, in the user's cache: whole or not at all, by one process at a time."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from core.errors import StorageError

OnProgress = Callable[[int, int], None]


def cache_folder() -> Path:
    """The folder for converted models: $PRUNEVIZ_CACHE, or ~/.cache/pruneviz."""
    return Path(os.environ.get("PRUNEVIZ_CACHE") or Path.home() / ".cache" / "pruneviz").expanduser()


def once(folder: Path, make: Callable[[Path], None]) -> None:
    """Make a folder of the cache, whole or not at all, unless it is there.

    Two processes may call at once: the second waits for the first. A killed conversion leaves nothing
    but a folder that the next one replaces.

    Raises:
        StorageError: the cache cannot be written.
    """
    from filelock import FileLock
    from safetensors import SafetensorError

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not folder.is_dir():
                beside = folder.with_name(f"{folder.name}.part")
                shutil.rmtree(beside, ignore_errors=True)
                make(beside)
                beside.rename(folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(
            f"{folder} cannot be written: {reason}; free some space, or set PRUNEVIZ_CACHE to another folder."
        ) from error


def progress(name: str) -> OnProgress:
    """Show on stderr how far the preparation of a model is."""

    def show(done: int, total: int) -> None:
        text = f"step {done + 1} of {total}" if done < total else "done"
        print(f"Preparing {name}: {text}", file=sys.stderr, flush=True)

    return show
