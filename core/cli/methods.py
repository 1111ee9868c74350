"""`methods`: every criterion and method with its options, and the page of docs that lists all options."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Annotated, Any

import typer

from core.cli import options
from core.cli.terminal import emit
from core.criteria import CRITERIA
from core.methods import METHODS, describe
from core.option import Option
from core.runs.command_line import TAKES
from core.spec.fields import OPTIONS

INTRO = """# Every option

Written by `python -m core methods --markdown`, from the fields of `core/spec` and of each method. A field
without an option of the command line is set in a `spec.json` only (`prune --spec FILE`).
"""


def methods(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/options.md: every option.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """List every criterion and method: where it is from, what data it needs, its options."""
    entries = [entry.describe() for entry in CRITERIA]
    trained = [describe(entry) for entry in METHODS]
    lines = [line for entry in [*entries, *trained] for line in _described(entry)]
    # Every criterion is a method of `prune`: rank by it, then cut.
    result = {"criteria": entries, "methods": [*entries, *trained]}
    emit(result, as_json, options_page().splitlines() if markdown else lines)


def _described(entry: dict[str, Any]) -> list[str]:
    source = " ".join(filter(None, (entry["paper"], entry["equation"])))
    needs = f"needs {', '.join(entry['needs'])}" if entry["needs"] else "needs no data"
    options = [
        f"    --set {key}={option['default']}  {option['meaning']}"
        for key, option in entry["options"].items()
    ]
    presets = [
        f"    --preset {name}  {', '.join(f'{path}={value}' for path, value in changes.items())}"
        for name, changes in entry.get("presets", {}).items()
    ]
    return [f"{entry['name']}  ({source}; {needs})", f"    {entry['summary']}", *options, *presets]


def options_page() -> str:
    """`docs/options.md`: a table for each part of a spec, and one for each method with options of its own."""
    tables = [INTRO]
    columns = ("accepted", "default", "what it does")
    for part, paths in groupby(OPTIONS, key=lambda path: path.rpartition(".")[0]):
        rows = [
            (path, OPTIONS[path].flag, *_told(OPTIONS[path]), ", ".join(c for c in TAKES if path in TAKES[c]))
            for path in paths
        ]
        tables.append(_table(part or "the run itself", ("field", "option", *columns, "commands"), rows))
    for entry in (*CRITERIA, *METHODS):
        own = [(name, *_told(option)) for name, option in entry.options.items()]
        tables += [_table(f"--method {entry.name}", ("--set", *columns), own)] if own else []
    return "\n".join(tables)


def _told(option: Option) -> tuple[str, str, str]:
    unit = f" ({option.unit})" if option.unit else ""
    return f"{option.accepted()}{unit}", option.default_words, option.help


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines: list[Sequence[str]] = [head, ("---",) * len(head), *([f"`{one}`", *rest] for one, *rest in rows)]
    written = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([f"## {title}", "", *written, ""])
