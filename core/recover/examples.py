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
from core.models.columns import chat_of, instruction_of, row_text
from core.models.data_sets import Opened, open_data
from core.models.hub import UnreachableError
from core.models.texts import CHARACTERS, Text, calibration_text, hashed
from core.models.windows import consecutive_windows
from core.spec.recover import RecoverSpec
from core.spec.texts import IN_PARTS

#: Not predicted: prompts and padding.
IGNORED = -100
#: At most this share of the data is kept apart.
_MOST_HELD = 0.1
#: Characters of a data set of plain text that are read at most.
_MOST_CHARACTERS = 500_000_000
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
        instead: what it is read instead of, and why; empty where it is what was asked for.
    """

    name: str
    sha256: str
    text: Text | None = None
    rows: tuple[dict[str, str], ...] = ()
    first: int = 0
    instead: str = ""


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


def needed(recipe: RecoverSpec) -> int | None:
    """How many sequences a training can use: those it steps through and those kept apart; None for all."""
    if recipe.steps is None:
        return None
    return max(recipe.steps * recipe.batch + recipe.held, round(recipe.held / _MOST_HELD))


def training_data(
    tokenizer: Any, recipe: RecoverSpec, seed: int, folder: str | None
) -> tuple[Source, TrainingData]:
    """What a recipe trains on. Raises DataError as `read_source` and `examples` do."""
    source = read_source(recipe.data, needed(recipe), recipe.length, folder)
    return source, examples(tokenizer, source, length=recipe.length, held=recipe.held, seed=seed)


def check_source(name: str, folder: str | None = None) -> None:
    """Find out whether it can be read: of a data set the first row. Raises DataError."""
    read_source(name, 1, 1, folder)


def read_source(names: str, most: int | None = None, length: int = 256, folder: str | None = None) -> Source:
    """`bundled`, a file, or a data set.

    Args:
        names: with commas between several: the first whose hub can be reached is read.
        most, length: sequences that are of use, None for all, and their tokens: no more is read of a data set
            than gives them. A bundled text and a file are read whole.
        folder: has copies of named data sets, see `core.models.data_sets.open_data`.

    Raises:
        DataError: it cannot be read, or has neither instructions nor text.
    """
    name, _, others = (names, "", "") if Path(names).expanduser().exists() else names.partition(",")
    if name in IN_PARTS:
        return _of_text(calibration_text(name))
    try:
        return _of_data_set(open_data(name, "calibration", folder), most, length)
    except UnreachableError as error:
        if not others:
            raise
        read = read_source(others, most, length, folder)
        return replace(read, instead=read.instead or f"{read.name} is read instead of {name}: {error}")


def _of_data_set(opened: Opened, most: int | None, length: int) -> Source:
    """The rows that are of use; the first says whether they are instructions."""
    enough = _MOST_CHARACTERS if most is None else min(most * length * CHARACTERS, _MOST_CHARACTERS)
    rows, texts, characters, first = list[dict[str, str]](), list[str](), 0, 0
    for number, row in enumerate(opened.rows, 1):
        instructs = bool(rows) or (not texts and len(opened.columns) != 1 and instruction_of(row) is not None)
        if not opened.whole and (len(rows) == most if instructs else characters >= enough):
            if not instructs and enough == _MOST_CHARACTERS:
                raise DataError(
                    f"{opened.name} has more than {_MOST_CHARACTERS:,} characters, too many to train on all; "
                    "say how many --steps to train."
                )
            first = number - 1
            break
        if not instructs:
            texts.append(row_text(opened.name, number, row, opened.columns))
            characters += len(texts[-1])
        elif instruction := instruction_of(row):
            rows.append(instruction)
        elif not chat_of(row):  # a conversation without an answer has nothing to learn
            raise DataError(f"{opened.name}, row {number} has no instruction with its answer.")
    if rows:
        return replace(_of_rows(opened.name, rows), first=first)
    joined = "\n\n".join(texts)
    if not joined.strip():
        raise DataError(f"{opened.name} is empty; give a text or instructions with answers.")
    return replace(_of_text(hashed(opened.name, joined)), first=first)


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


def _of_rows(name: str, rows: Sequence[dict[str, str]]) -> Source:
    return Source(name, sha256(dumps(rows).encode()).hexdigest(), rows=tuple(rows))


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
