"""What a pruned model is trained on: instructions with answers, or windows of text; a part is kept apart.

Instructions are rows of `instruction`, `input` and `output`, as in Alpaca; only the answer is predicted.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import DataError
from core.models.rows import SUFFIXES, hub_rows, rows_of
from core.models.texts import BUNDLED, Text, calibration_text
from core.models.windows import consecutive_windows
from core.spec.recover import RecoverSpec

#: Not predicted: prompts and padding.
IGNORED = -100
#: At most this share of the data is kept apart.
_MOST_HELD = 0.1
#: The most that is read of a data set on the hub: rows of instructions, or characters of text.
MOST_ROWS, _MOST_CHARACTERS = 100_000, 50_000_000
#: More than a token of a text has on average, so that enough is read before a tokenizer sees it.
_CHARACTERS = 8
_ALPACA = (
    "Below is an instruction that describes a task{paired}. "
    "Write a response that appropriately completes the request."
)
_ALPACA_PAIRED = ", paired with an input that provides further context"


@dataclass(frozen=True)
class Example:
    """One sequence: token ids, and the same as labels with `IGNORED` where nothing is predicted."""

    ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Source:
    """What was read, before a tokenizer sees it: either a text or instructions.

    Attributes:
        name, sha256: what names it in a record.
        text: plain text, or None; rows: instructions with `instruction`, `input`, `output`.
        first: how many rows were read of a data set that has more; 0 where all were.
    """

    name: str
    sha256: str
    text: Text | None = None
    rows: tuple[dict[str, str], ...] = ()
    first: int = 0


@dataclass(frozen=True)
class TrainingData:
    """Sequences to train on and sequences kept apart.

    Attributes:
        template: how instructions were written: `chat`, `alpaca`, or `none` for plain text.
        dropped: rows whose prompt left no room for an answer.
    """

    train: list[Example]
    held: list[Example]
    template: str
    dropped: int = 0


def needed(recipe: RecoverSpec) -> int:
    """How many sequences a training can use: those it steps through and those kept apart."""
    trained = recipe.steps * recipe.batch if recipe.steps else MOST_ROWS
    return min(max(trained + recipe.held, round(recipe.held / _MOST_HELD)), MOST_ROWS)


def check_source(name: str) -> None:
    """Find out whether it can be read: of a data set on the hub the first row. Raises DataError."""
    read_source(name, 1, 1)


def read_source(name: str, most: int = MOST_ROWS, length: int = 256) -> Source:
    """`bundled`, a file, or a data set on the hub or in a folder in that layout.

    Args:
        most, length: sequences that are of use, and their tokens: no more is read of a data set than gives
            them. A bundled text and a file are read whole.

    Raises:
        DataError: it cannot be read, or has neither instructions nor text.
    """
    if name == BUNDLED:
        return _of_text(calibration_text())
    path, folder = Path(name).expanduser(), Path(name.partition(":")[0]).expanduser()
    if not folder.is_dir() and (path.exists() or path.is_absolute() or path.suffix.lower() in SUFFIXES):
        rows = rows_of(name)
        return _of_rows(path.name, rows) if _instructs(rows) else _of_text(calibration_text(name))
    return _of_data_set(name, most, min(most * length * _CHARACTERS, _MOST_CHARACTERS))


def _of_data_set(name: str, most: int, most_characters: int) -> Source:
    """The first rows of a data set, which is read once, as a stream; the first says what it holds."""
    stream, rows, characters, more = hub_rows(name), list[Any](), 0, False
    for row in stream:
        if rows and (more := len(rows) >= most if _instructs(rows[:1]) else characters >= most_characters):
            break
        rows.append(row)
        characters += len(str(row.get("text") or ""))
    first = len(rows) if more else 0
    if _instructs(rows):
        return replace(_of_rows(name, rows), first=first)
    texts = [row["text"] for row in rows if isinstance(row.get("text"), str)]
    if not texts:
        raise DataError(f"{name} has neither 'instruction' and 'output' nor 'text'; give another data set.")
    joined = "\n\n".join(texts)
    return replace(_of_text(Text(name, joined, sha256(joined.encode()).hexdigest())), first=first)


def examples(tokenizer: Any, source: Source, *, length: int, held: int, seed: int) -> TrainingData:
    """Sequences of at most `length` tokens; `held` of them, or a tenth if that is fewer, are kept apart.

    Of a text the last windows are kept apart, so that no neighbour of theirs is trained on.

    Raises:
        DataError: too little to train on.
    """
    if source.text is not None:
        windows = consecutive_windows(tokenizer, source.text, window=length)
        sequences = [Example(row, row) for row in windows.tolist()]
        template, dropped = "none", 0
    else:
        template = "chat" if getattr(tokenizer, "chat_template", None) else "alpaca"
        written = [_answered(tokenizer, row, template, length) for row in source.rows]
        sequences = [example for example in written if example is not None]
        dropped = len(written) - len(sequences)
        random.Random(seed).shuffle(sequences)
    apart = min(held, int(len(sequences) * _MOST_HELD))
    if apart < 1:
        raise DataError(
            f"{source.name} gives {len(sequences)} sequences of {length} tokens, but some are kept apart: "
            f"at least {round(1 / _MOST_HELD)} are needed. Give more data or a shorter length."
        )
    return TrainingData(sequences[:-apart], sequences[-apart:], template, dropped)


def collate(batch: Sequence[Example], padding: int) -> dict[str, Tensor]:
    """Pad on the right: `input_ids`, `attention_mask` and `labels`, each (batch, longest)."""
    longest = max(len(example.ids) for example in batch)

    def padded(rows: list[list[int]], filler: int) -> Tensor:
        return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])

    return {
        "input_ids": padded([example.ids for example in batch], padding),
        "attention_mask": padded([[1] * len(example.ids) for example in batch], 0),
        "labels": padded([example.labels for example in batch], IGNORED),
    }


def _of_text(text: Text) -> Source:
    return Source(text.name, text.sha256, text=text)


def _of_rows(name: str, rows: Sequence[dict[str, Any]]) -> Source:
    plain = tuple(
        {key: str(row.get(key) or "") for key in ("instruction", "input", "output")} for row in rows
    )
    return Source(name, sha256(dumps(plain).encode()).hexdigest(), rows=plain)


def _instructs(rows: Sequence[Any]) -> bool:
    return bool(rows) and all(isinstance(row, dict) and {"instruction", "output"} <= set(row) for row in rows)


def _answered(tokenizer: Any, row: dict[str, str], template: str, length: int) -> Example | None:
    """Prompt and answer, cut to `length`; None if the prompt leaves no room for an answer."""
    prompt = _prompt(tokenizer, row, template)
    answer = list(tokenizer(row["output"], add_special_tokens=False, verbose=False)["input_ids"])
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids = [*prompt, *answer, *end][:length]
    if len(prompt) >= length:
        return None
    return Example(ids, [IGNORED] * len(prompt) + ids[len(prompt) :])


def _prompt(tokenizer: Any, row: dict[str, str], template: str) -> list[int]:
    if template == "chat":
        question = "\n\n".join(part for part in (row["instruction"], row["input"]) if part)
        messages = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    parts = [_ALPACA.format(paired=_ALPACA_PAIRED if row["input"] else "")]
    parts += [f"### Instruction:\n{row['instruction']}"]
    parts += [f"### Input:\n{row['input']}"] if row["input"] else []
    return list(tokenizer("\n\n".join([*parts, "### Response:\n"]), verbose=False)["input_ids"])
