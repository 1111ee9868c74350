"""What a search or a scan has measured, kept so that a resumed one goes on, another target begins with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from core.errors import ArtifactError
from core.files import read_record, write_json

_SAVE_S = 5.0
Measured = TypeVar("Measured")


class Kept(Generic[Measured]):
    """What takes long, by name, in a file that is rewritten every few seconds; `of` is its type in JSON."""

    def __init__(self, path: Path, of: type[Measured]) -> None:
        self._path, self._saved = path, time.monotonic()
        self.measured: dict[str, Measured]
        try:
            self.measured = read_record(path, dict[str, of])  # type: ignore[valid-type]
        except ArtifactError:
            self.measured = {}

    def __call__(self, name: str, measure: Callable[[], Measured]) -> Measured:
        """What was measured under this name, measured now unless it is there."""
        if name not in self.measured:
            self.measured[name] = measure()
            if time.monotonic() - self._saved > _SAVE_S:
                self.save()
        return self.measured[name]

    def save(self) -> None:
        """Write all of them down. Raises StorageError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._path, self.measured)
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Take the file away, and a folder that is empty then, once all of it stands elsewhere."""
        self._path.unlink(missing_ok=True)
        with suppress(OSError):  # other things are kept there
            self._path.parent.rmdir()
