"""What an export wrote, as in `export.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from core.files import read_record

EXPORTED = "export.json"


@dataclass(frozen=True)
class Exported:
    """`export.json`: files in a format for others.

    Attributes:
        format: e.g. `gguf`; folder: where they lie.
        files: path in that folder -> bytes.
        use: how to run it, line by line to copy; notes: what people should know.
        pushed: its address on the hub, if it was uploaded.
    """

    format: str
    folder: str
    files: dict[str, int]
    use: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pushed: str = ""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())


def read_exported(run_dir: Path) -> Exported:
    """Read `export.json`. Raises ArtifactError."""
    return read_record(run_dir / EXPORTED, Exported, "run it again")
