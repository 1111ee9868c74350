"""The commands under one name, and what becomes of a mistake. torch loads in the commands that need it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from itertools import pairwise

import typer
from typer.exceptions import TyperException

from core.cli import runs
from core.cli.advise import advise
from core.cli.evaluate import evaluate
from core.cli.explore import explore, score, sensitivity, similarity
from core.cli.export import export
from core.cli.generate import generate
from core.cli.groups import groups
from core.cli.methods import methods
from core.cli.prune import prune
from core.cli.recover import recover
from core.cli.report import report
from core.cli.sweep import sweep
from core.errors import PruneError, StopRequested
from core.runs.company import join

PROGRAM = "python -m core"
app = typer.Typer(
    name=PROGRAM,
    help="Prune language models, and find out what can go. Every command takes --json.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
)
COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command
    for command in (
        groups, score, similarity, sensitivity, explore, prune, recover, sweep, evaluate, generate, export,
        report, methods, advise,
    )
}  # fmt: skip
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(runs.app, name="runs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0; 2 and one line on stderr if the request is wrong; 130 if it was stopped."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if (mine := join()) is None:
        return _do(given)
    from core.stages.accompany import accompany

    return accompany(mine, lambda: _do(given))


def _do(given: Sequence[str]) -> int:
    try:
        code = app(args=list(given) or ["--help"], standalone_mode=False, prog_name=PROGRAM)
    except TyperException as error:
        return _say(_usage(error, given), 2)
    except (StopRequested, KeyboardInterrupt, typer.Abort) as error:
        return _say(str(error) or "Stopped.", 130)
    except PruneError as error:
        return _say(str(error), 2)
    except Exception as error:
        traceback.print_exc()
        return _say(f"This is a bug in the workbench: {type(error).__name__}: {error}", 1)
    return code if isinstance(code, int) else 0


def _usage(error: TyperException, given: Sequence[str]) -> str:
    """What is wrong with a command line, what was given, and where the help is."""
    text = getattr(error, "format_message", error.__str__)().rstrip(".")
    for option in getattr(getattr(error, "param", None), "opts", ()):
        typed = [word.removeprefix(f"{option}=") for word in given if word.startswith(f"{option}=")]
        typed += [after for word, after in pairwise(given) if word == option]
        text += f", got {', '.join(map(repr, typed))}" if typed else ""
    if text.startswith("No such command"):
        there = "list, show, stop, resume" if "runs" in given[:1] else ", ".join([*COMMANDS, "runs"])
        return f"{text}; there is {there}. See: {PROGRAM} --help"
    words = [word for word in given if word.isalpha()][: 2 if "runs" in given[:1] else 1]
    return f"{text}. See: {' '.join([PROGRAM, *words, '--help'])}"


def _say(text: str, code: int) -> int:
    print(" ".join(text.split()), file=sys.stderr)
    return code
