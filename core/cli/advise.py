"""`advise`: three ways to a budget, each with what it takes and what is known of it. Nothing is measured."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from core.cli import options
from core.cli.ask import RUNS
from core.cli.terminal import emit, stdout_kept_clean
from core.errors import NotPrunableError
from core.runs import advice
from core.runs.advice import Advice
from core.runs.request import FIELDS, Given, ask_to_prune


@options.takes("advise")
def advise(
    model: options.ModelArgument,
    given: Given = FIELDS,
    runs_dir: options.RunsDir = RUNS,
    as_json: options.Json = False,
) -> None:
    """Say what to do: no training, minutes, or an hour of it."""
    with stdout_kept_clean():
        from core.memory.here import held
        from core.models.again import graph_of

        spec = ask_to_prune(model, given)
        graph = graph_of(spec.model, config_only=True)
        ways = advice.advise(spec, graph, advice.finished_runs(runs_dir, spec.model.source), held)
    if all(way.problem for way in ways):
        raise NotPrunableError(ways[0].problem)
    listed = [{key: value for key, value in asdict(way).items() if key != "spec"} for way in ways]
    emit(
        {"model": spec.model.source, "ways": listed}, as_json, [line for way in ways for line in _lines(way)]
    )


def _lines(way: Advice) -> list[str]:
    """A way for people to read."""
    said: dict[str, Any] = {"left": way.after, "takes": way.takes, "measured": way.measured}
    said = {"problem": way.problem} if way.problem else said
    unknown = [f"  not known  {doubt}" for doubt in way.doubts]
    lines = [f"  {name:<10} {text}" for name, text in said.items() if text]
    return [f"{way.title}: {way.about}", *lines, *unknown, f"  {way.command}", ""]
