"""What a search has measured, kept so that a resumed one goes on, and another target begins with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from core.errors import ArtifactError
from core.files import read_record, write_json

_SAVE_S = 5.0


class Kept:
    """Numbers that take long, by name, in a file that is rewritten every few seconds."""

    def __init__(self, path: Path) -> None:
        self._path, self._saved = path, time.monotonic()
        try:
            self.numbers = read_record(path, dict[str, float])
        except ArtifactError:
            self.numbers = {}

    def __call__(self, name: str, measure: Callable[[], float]) -> float:
        """The number of this name, measured unless it is there."""
        if name not in self.numbers:
            self.numbers[name] = measure()
            if time.monotonic() - self._saved > _SAVE_S:
                self.save()
        return self.numbers[name]

    def save(self) -> None:
        """Write all of them down. Raises StorageError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._path, self.numbers)
        self._saved = time.monotonic()
