"""Options of commands: those that fields of a spec declare, and those that are no field, each said once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from core.errors import SpecError
from core.option import Option
from core.runs.command_line import TAKES
from core.spec.fields import OPTIONS

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="'demo', a hub id, a model's folder, a .gguf file, or the folder of a run with a pruned model.",
    ),
]
ModelOrRun = Annotated[
    str,
    typer.Argument(
        metavar="MODEL_OR_RUN",
        help="'demo', a hub id, a model's folder, a .gguf file, or a finished run: its id or its folder.",
    ),
]
PrunedRun = Annotated[
    str, typer.Argument(metavar="RUN", help="A finished pruning run: its id or its folder.")
]
RunsDir = Annotated[Path, typer.Option("--runs-dir", metavar="FOLDER", help="Folder that keeps all runs.")]
Detach = Annotated[bool, typer.Option("--detach", help="Leave the run to a worker, and print the run's id.")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object.")]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="Recipe of the training: paper (LLM-Pruner), demo (LoRA, two cores, 20 minutes), minutes or "
        "hour (taught by the dense model). Default: paper.",
    ),
]


def takes(command: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator of a command: its parameter `given` becomes an option for every field that it takes."""
    options = {path.replace(".", "__"): (path, OPTIONS[path]) for path in TAKES[command]}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def called(**values: Any) -> None:
            typed = {name: values.pop(name) for name in options}
            given = {
                path: option.read(_single(option, typed[name]))
                for name, (path, option) in options.items()
                if typed[name] not in (None, [])
            }
            function(**values, given=given)

        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            fields = [_parameter(name, option) for name, (_, option) in options.items()]
            parameters += fields if parameter.name == "given" else [parameter]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return decorate


def _single(option: Option, typed: Any) -> Any:
    """What was typed, once unless the option may be repeated. Raises SpecError."""
    if option.repeated or option.kind is bool:
        return typed
    if len(typed) > 1:
        several = " and ".join(map(str, typed))
        once = "give it once" + (", several values with commas" if option.kind is tuple else "")
        raise SpecError(f"{option.flag} was given {len(typed)} times: {several}; {once}.")
    return typed[0]


def _parameter(name: str, option: Option) -> inspect.Parameter:
    single: Any = str if option.repeated or option.parse or option.kind is tuple else option.kind
    kind: Any = bool if single is bool else list[single]  # a list shows what was given more than once
    metavar = option.metavar or option.unit.upper() or _metavar(option)
    said = typer.Option(option.flag, metavar=metavar, help=help_of(option))
    typed = Annotated[kind | None, said]
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=typed)


def _metavar(option: Option) -> str:
    """What stands for a value in the help."""
    word = "NAME" if option.choices else {int: "N", float: "NUMBER"}.get(option.item, "TEXT")
    return f"{word},..." if option.kind is tuple and not option.repeated else word


def help_of(option: Option) -> str:
    """What an option does, what it takes and its default."""
    accepted = option.explained()
    commas = ", with commas" if option.kind is tuple else ""
    several = f" {accepted[0].upper()}{accepted[1:]}{commas}." if option.choices else ""
    common = f" For example {', '.join(map(str, option.examples))}." if option.examples else ""
    return f"{option.help}{several}{common} Default: {option.default_words}."
