"""Print results, as one JSON object or a few lines on stdout, and progress on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from core.results.perplexity import by_text
from core.results.words import calibrated_on, measured_on, number, short_texts, with_error
from core.runs.events import Event, in_words

BAR = 30


@contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Send what libraries print to stderr: stdout carries the result and nothing else."""
    with redirect_stdout(sys.stderr):
        yield


def emit(result: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    """Print the result: as one JSON object, or as lines for people."""
    print(json.dumps(plain(result), indent=2) if as_json else "\n".join(lines))


def plain(value: Any) -> Any:
    """The value as JSON has it: without infinity, so a perplexity that overflows becomes null."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(rows: list[list[str]]) -> list[str]:
    """Rows as aligned lines; the first is the header."""
    columns = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, columns)).rstrip() for row in rows]


def keys_and_values(result: dict[str, Any]) -> list[str]:
    """One line per entry, values aligned."""
    width = max(map(len, result), default=0)
    return [f"{key.replace('_', ' '):<{width}}  {_shown(value)}" for key, value in result.items()]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return number(value, ",.4f" if abs(value) < 1 else ",.2f")
    return f"{value:,}" if isinstance(value, int) else str(value)


def score_lines(scores: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Benchmarks as a table, a line per task and a column per model; nothing without benchmarks.

    Args:
        scores: column -> task -> its summary.
    """
    tasks = list(dict.fromkeys(task for column in scores.values() for task in column))
    if not tasks:
        return []
    rows = [["task", "metric", *scores, "n", "from"]]
    for task in tasks:
        cells = [column.get(task) for column in scores.values()]
        first = next(cell for cell in cells if cell is not None)
        values = [with_error(cell[cell["metric"]], cell["stderr"], ".4f") if cell else "-" for cell in cells]
        rows.append([task, first["metric"], *values, f"{first['n']:,}", first["source"]])
    return ["", *table(rows)]


#: What a model of a run is called in a table, by how the names of its numbers end.
SIDES = {
    "": "ppl",
    "_before": "dense",
    "_control": "dense, trained alike",
    "_coupled": "coupled",
    "_pruned": "pruned",
    "_after": "final",
}


def perplexity_lines(metrics: dict[str, Any]) -> list[str]:
    """Perplexities as a table, a line per text with all that they depend on.

    Args:
        metrics: as `metrics.json` has it.
    """
    texts = by_text(metrics)
    sides = [ending for ending in SIDES if any(row.get(f"ppl{ending}") is not None for row in texts)]
    far = [ending for ending in SIDES if any(row.get(f"kl{ending}") is not None for row in texts)]
    heads = [*(SIDES[ending] for ending in sides), *(f"{SIDES[ending]}, nats from dense" for ending in far)]
    rows = [["perplexity", *heads, "measured on", "calibrated on, seed"]]
    for name, row in zip(short_texts([str(row.get("ppl_text")) for row in texts]), texts, strict=True):
        values = [with_error(row.get(f"ppl{end}"), row.get(f"ppl_stderr{end}"), ",.2f") for end in sides]
        values += [with_error(row.get(f"kl{end}"), row.get(f"kl_stderr{end}"), ",.3f") for end in far]
        rows.append([name, *values, measured_on(row), calibrated_on(row) or "-"])
    return ["", *table(rows)] if texts else []


class ProgressBar:
    """Draws events on stderr: a moving bar on a terminal, one line per stage elsewhere."""

    def __init__(self) -> None:
        self._moving = sys.stderr.isatty()
        self._open = False

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if event.type == "progress" and self._moving:
            self._bar(event)
        elif event.type == "stage":
            data = event.data
            self.say(f"[{data['index'] + 1}/{len(data['stages'])}] {data['title']}")
        elif event.type == "message":
            self.say(f"      {in_words(event.data['text'], event.data['level'])}")
        elif event.type == "metric" and event.data["name"].startswith("ppl"):
            text = event.data["name"].partition(".")[2]
            self.say(f"      perplexity {event.data['value']:.2f}{f' on {text}' if text else ''}")
        elif event.type == "done":
            self.say(event.data["state"])

    def _bar(self, event: Event) -> None:
        done, total = event.data["done"], max(event.data["total"], 1)
        full = round(BAR * done / total)
        sys.stderr.write(f"\r      {'#' * full}{'.' * (BAR - full)} {done}/{total} {event.data['unit']}  ")
        sys.stderr.flush()
        self._open = True

    def say(self, text: str) -> None:
        """Print a line below the bar."""
        if self._open:
            sys.stderr.write("\n")
            self._open = False
        print(text, file=sys.stderr, flush=True)
