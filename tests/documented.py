"""The commands in README.md, SECURITY.md and docs/, as a reader would type them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORE = ["python", "-m", "core"]
#: Its commands are written by a program, and tested with it, in tests/pruneviz/data/test_commands.py.
WRITTEN = ROOT / "docs" / "published.md"


def pages() -> list[Path]:
    """Every page with commands that people wrote."""
    found = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [page for page in found if page != WRITTEN]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command: lines of shell blocks, and commands of the engine within sentences."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words
    sentences = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`(\.venv/bin/)?(python -m core [^`]+)`", sentences):
        yield shlex.split(" ".join(span[1].split()))
