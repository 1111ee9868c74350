"""What a row of a data set says: a text, an instruction with its answer, or a conversation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from core.errors import DataError

Chat = tuple[dict[str, str], ...]
#: Columns that are a row's text, the first that it has.
_TEXTS = ("text", "sentence", "content")
#: Where an instruction's answer stands: Alpaca's, LaMini's.
_ANSWERS = ("output", "response")
#: Columns with a conversation, and how the two usual forms call who speaks and what is said.
_CHATS = ("messages", "conversations")
_SPEAKER, _SAID = ("role", "from"), ("content", "value")
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant"}


def row_text(where: str, number: int, row: Any, columns: Sequence[str] = ()) -> str:
    """The text of a row; of a conversation what was said, without who said it.

    Args:
        where, number: what is read, and which row of it, for the message.
        columns: where the text stands, one after the other; found where none is given.

    Raises:
        DataError: there is no text; the message says which columns there are.
    """
    if isinstance(row, str) and not columns:
        return row
    if not isinstance(row, dict):
        raise DataError(f"{where}, row {number} must be an object or a text, got {type(row).__name__}.")
    chosen = [*columns] or _columns_of(row)
    if chosen and all(name in row for name in chosen if name != "input"):
        return "\n".join(_plain(row[name]) for name in chosen if row.get(name) not in (None, "", []))
    missing = f"no column '{columns[0]}'" if columns else "no column with its text"
    raise DataError(
        f"{where}, row {number} has {missing}; it has {', '.join(map(str, row)) or 'none at all'}. "
        "Name the one with the text: source:config:split:column, for example file.csv:::body."
    )


def _columns_of(row: dict[str, Any]) -> list[str]:
    """The columns that hold a row's text: `text` and the like, an instruction with its answer, a chat."""
    for name in _TEXTS:
        if isinstance(row.get(name), str) or (name == "text" and name in row and row[name] is None):
            return [name]
    answer = next((name for name in _ANSWERS if name in row), None)
    if "instruction" in row and answer:
        return [name for name in ("instruction", "input", answer) if name in row]
    return [name for name in _CHATS if isinstance(row.get(name), list)][:1]


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(turn["content"] for turn in _turns(value))
    return str(value)


def chat_of(row: Any, columns: Sequence[str] = ()) -> Chat:
    """The conversation of a row as {"role", "content"} each; empty where it has none."""
    chosen = [*columns] or (_columns_of(row) if isinstance(row, dict) else [])
    held = row.get(chosen[0]) if len(chosen) == 1 and isinstance(row, dict) else None
    return tuple(_turns(held)) if isinstance(held, list) else ()


def _turns(turns: list[Any]) -> Iterable[dict[str, str]]:
    for turn in turns:
        if isinstance(turn, dict):
            role = str(next((turn[key] for key in _SPEAKER if key in turn), "user"))
            said = next((turn[key] for key in _SAID if key in turn), "")
            yield {"role": _ROLES.get(role, role), "content": _words(said)}
        else:
            yield {"role": "user", "content": str(turn)}


def _words(said: Any) -> str:
    """What was said; of several parts, among them pictures, those that are text."""
    if not isinstance(said, list):
        return str(said or "")
    parts = [part.get("text") if isinstance(part, dict) else part for part in said]
    return "\n".join(part for part in parts if isinstance(part, str))


def instruction_of(row: Any) -> dict[str, str] | None:
    """A row's `instruction`, `input` and `output`; None where it is none.

    LaMini's answer is called `response`. Of a conversation the last answer is the output, and what was said
    before it the instruction.
    """
    if not isinstance(row, dict):
        return None
    answer = next((name for name in _ANSWERS if name in row), None)
    if "instruction" in row and answer:
        values = (row["instruction"], row.get("input"), row[answer])
        return dict(
            zip(("instruction", "input", "output"), (str(value or "") for value in values), strict=True)
        )
    chat = () if isinstance(row.get("text"), str) else chat_of(row)
    last = max((i for i, turn in enumerate(chat) if turn["role"] == "assistant"), default=0)
    if last == 0:
        return None
    before = "\n\n".join(turn["content"] for turn in chat[:last])
    return {"instruction": before, "input": "", "output": chat[last]["content"]}
