"""What programs may ask of the page by name: `analyse`, `prune`, `status`, `compare`; docs/api.md.

`gradio_client` calls them, and with `--mcp` a model may, too. They go through the checks of the form and the
command line and refuse in the same line. Everything else on the page is private.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from inspect import Parameter, signature
from typing import Any, ParamSpec

import gradio as gr
from gradio.events import api

from core.errors import PruneError, SpecError
from core.registry import unknown
from core.runs import watch
from core.runs.records import full_record, record
from core.runs.request import Given, ask, ask_to_prune, given_of
from core.spec.explore import ANALYSES
from core.spec.model import ModelSpec
from core.spec.run import Goal, RunSpec
from pruneviz.actions.launch import explore_spec, launch
from pruneviz.context import AppContext
from pruneviz.data.contenders import DENSE, keys_of, line_up, plain_key
from pruneviz.figures.compare import compare_info, entries_of

P = ParamSpec("P")
Answer = dict[str, Any]


def add_endpoints(app: AppContext) -> None:
    """Add the endpoints to the page that is being built."""
    for function in endpoints(app):
        api(function, api_name=function.__name__, queue=False)


def endpoints(app: AppContext) -> list[Callable[..., Answer]]:
    """The functions behind the endpoints, documented for who calls them."""

    @_refusing
    def analyse(
        model: str, analyses: list[str] | None = None, options: dict[str, Any] | None = None
    ) -> Answer:
        """Find out what can go of a model: start a run and return it at once. Ask status how it goes.

        Args:
            model: 'demo', a hub id, a folder, a .gguf file, or the folder of a run with a pruned model.
            analyses: some of groups, similarity, scores and sensitivity; all if left out.
            options: options of `python -m core explore` by name, such as {"samples": 8, "tau": 0.2}.
        """
        given = _given("explore", options, analyses=analyses)
        base = explore_spec(app, ModelSpec(model).source, given.get("explore.analyses", ANALYSES))
        return record(launch(app, ask("explore", model, given, _asked_here(base))))

    @_refusing
    def prune(
        model: str,
        sparsity: float | str | None = None,
        method: str | None = None,
        preset: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> Answer:
        """Prune a model, measure it and save it: start a run and return it at once. Ask status how it goes.

        Args:
            model: 'demo', a hub id, a folder, a .gguf file, or the folder of a run with a pruned model.
            sparsity: fraction of the block parameters that goes, from 0 to below 1; 0.2 if left out.
            method: what ranks units, or trains; the best that needs no training if left out.
            preset: recommended, minutes or hour for a whole run; or a training's, as on the command line.
            options: options of `python -m core prune` by name, such as {"layers": "4:30", "seed": 1}.
        """
        given = _given("prune", options, sparsity=sparsity, method=method)
        spec = ask_to_prune(model, given, _asked_here(app.usual(ModelSpec(model).source)), preset=preset)
        return record(launch(app, spec))

    @_refusing
    def status(run: str | None = None) -> Answer:
        """How a run goes: its state, spec, numbers and the end of its log; of all runs if none is named.

        Args:
            run: the run's id, or its beginning.
        """
        if run:
            return full_record(watch.find(app.runs_dir, str(run)))
        return {"runs": [record(path) for path in watch.list_runs(app.runs_dir)]}

    @_refusing
    def compare(models: list[str] | None = None) -> Answer:
        """Up to four models side by side: what was measured, each against the first, within the noise or not.

        Args:
            models: ids of runs that left a model, or 'dense'; the dense model and the newest if left out.
        """
        if not isinstance(models or [], list):
            raise SpecError(f"models must be a list of runs or 'dense', got {models!r}.")
        keys = list(dict.fromkeys(map(str, models or [])))
        records = app.records(app.model, *map(plain_key, keys))
        there = [DENSE, *(each.id for each in records)]
        for key in map(plain_key, keys):
            if key not in there:
                raise unknown("run", key, there)
        lineup = line_up(records, keys or keys_of("", "", records), app.model)
        entries = entries_of(lineup, records)
        info = compare_info(entries)
        return {
            "models": [{"title": title, "detail": detail} for title, detail in info.columns],
            "numbers": [dict(entry.numbers) for entry in entries],
            "rows": [
                {
                    "name": row.name,
                    "title": row.title,
                    "cells": [{"text": c.text, "change": c.change, "verdict": c.verdict} for c in row.cells],
                }
                for row in info.rows
            ],
            "notes": [*lineup.notes, *info.notes],
        }

    return [analyse, prune, status, compare]


def answer(app: AppContext, name: str, arguments: dict[str, Any]) -> Answer:
    """What an endpoint answers to who names it and every argument.

    Raises:
        UnknownNameError: there is no such endpoint or argument. SpecError: an argument is missing.
        gr.Error: what the endpoint refuses.
    """
    functions = {function.__name__: function for function in endpoints(app)}
    if name not in functions:
        raise unknown("tool", name, list(functions))
    takes = signature(functions[name]).parameters
    for argument in arguments:
        if argument not in takes:
            raise unknown(f"argument of {name}", argument, list(takes))
    for needed, parameter in takes.items():
        if parameter.default is Parameter.empty and needed not in arguments:
            raise SpecError(f"{name} needs the argument {needed}; it takes {', '.join(takes)}.")
    return functions[name](**arguments)


class _Refused(gr.Error):
    """Says its line as it is; Gradio's own puts it in quotes for who asks by MCP."""

    def __str__(self) -> str:
        return str(self.message)


def _refusing(function: Callable[P, Answer]) -> Callable[P, Answer]:
    """The function, which says what is wrong with a request in one line and no more."""

    @wraps(function)
    def called(*args: P.args, **values: P.kwargs) -> Answer:
        try:
            return function(*args, **values)
        except PruneError as error:
            raise _Refused(" ".join(str(error).split()), print_exception=False) from error

    return called


def _given(goal: Goal, options: Any, **named: Any) -> Given:
    """Options and arguments with a name of their own as fields of a spec. Raises SpecError."""
    if not isinstance(options or {}, dict):
        raise SpecError(f"options must be an object: name -> value, got {options!r}.")
    return given_of(goal, {**(options or {}), **{k: v for k, v in named.items() if v is not None}})


def _asked_here(spec: RunSpec) -> RunSpec:
    """The same without a model's own code, which is only run where the request itself says so."""
    return replace(spec, model=replace(spec.model, trust_remote_code=False))
