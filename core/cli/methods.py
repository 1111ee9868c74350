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
from core.runs.command_line import TAKES, words
from core.spec.fields import OPTIONS
from core.spec.settings import settings_entries
from core.spec.texts import NAMED

INTRO = """# Every option

Written by `python -m core methods --markdown`: the fields of a run's `spec.json`, the options of each method,
and the options of commands that are no field. Two fields have no option: `goal` is the command itself, and
`model.source` is its MODEL. What a run adds to its spec (`extra`) is not to be set.
"""
_DATA = (
    "name",
    "data set",
    "on the hub",
    "to score or train on",
    "to measure on",
    "columns",
    "licence",
    "used",
)


def methods(
    context: typer.Context,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/options.md: every option.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """List every criterion and method, with source and options."""
    entries = [entry.describe() for entry in CRITERIA]
    trained = [describe(entry) for entry in METHODS]
    lines = [line for entry in [*entries, *trained] for line in _described(entry)]
    # Every criterion is a method of `prune`: rank by it, then cut.
    result = {"criteria": entries, "methods": [*entries, *trained]}
    emit(result, as_json, options_page(context.find_root().command).splitlines() if markdown else lines)


def _described(entry: dict[str, Any]) -> list[str]:
    source = " ".join(filter(None, (entry["paper"], entry["equation"])))
    needs = f"needs {', '.join(entry['needs'])}" if entry["needs"] else "needs no data"
    options = [
        f"    --set {typed}  {option['meaning']}"
        for key, option in entry["options"].items()
        for typed in settings_entries({key: option["default"]})
    ]
    presets = [
        f"    --preset {name}  {' '.join(word for path in changes for word in words(path, changes[path]))}"
        for name, changes in entry.get("presets", {}).items()
    ]
    return [f"{entry['name']}  ({source}; {needs})", f"    {entry['summary']}", *options, *presets]


def options_page(program: Any) -> str:
    """`docs/options.md`: a table for each part of a spec, for each method's own options, and of what is left.

    Args:
        program: the command line, a group of commands.
    """
    tables = [INTRO]
    columns = ("accepted", "default", "what it does")
    for part, paths in groupby(_settable(), key=lambda path: path.rpartition(".")[0]):
        rows = [
            (path, OPTIONS[path].flag, *_told(OPTIONS[path]), ", ".join(c for c in TAKES if path in TAKES[c]))
            for path in paths
        ]
        tables.append(_table(part or "the run itself", ("field", "option", *columns, "commands"), rows))
    for entry in (*CRITERIA, *METHODS):
        own = [(name, *_told(option)) for name, option in entry.options.items()]
        tables += [_table(f"--method {entry.name}", ("--set", *columns), own)] if own else []
    tables.append(_table("data sets with a name", _DATA, _data_sets()))
    head = ("option", "default", "what it does", "commands")
    return "\n".join([*tables, _table("options that are no field", head, _no_fields(program))])


def _data_sets() -> list[tuple[str, ...]]:
    """What every named data set is, where it is on the hub, and what for."""
    return [
        (name, data.title, ":".join(filter(None, (data.hub, data.config))), data.calibrates, data.evaluates,
         ", ".join(data.columns), data.licence, data.used)
        for name, data in NAMED.items()
    ]  # fmt: skip


def _settable() -> list[str]:
    return [path for path in OPTIONS if path != "extra"]


def _no_fields(program: Any) -> list[tuple[str, ...]]:
    """Options of commands that no field of a spec declares: flag, default, help and commands."""
    takers: dict[tuple[str, str, str], list[str]] = {}
    for name, command in _commands(program):
        fields = {path.replace(".", "__") for path in TAKES.get(name, ())}
        for given in command.params:
            if given.param_type_name == "option" and given.name not in fields:
                default = "" if given.default in (None, False) or given.required else str(given.default)
                takers.setdefault((given.opts[0], default, given.help), []).append(name)
    return [(*said, ", ".join(names)) for said, names in takers.items()]


def _commands(program: Any, before: str = "") -> list[tuple[str, Any]]:
    """Every command with its name, those of a group after the group's name."""
    inside = getattr(program, "commands", None)
    if inside is None:
        return [(before.strip(), program)]
    return [entry for name, command in inside.items() for entry in _commands(command, f"{before} {name}")]


def _told(option: Option) -> tuple[str, str, str]:
    unit = f" ({option.unit})" if option.unit else ""
    return f"{option.explained()}{unit}", option.default_words, option.help


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines: list[Sequence[str]] = [head, ("---",) * len(head), *([f"`{one}`", *rest] for one, *rest in rows)]
    written = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([f"## {title}", "", *written, ""])
