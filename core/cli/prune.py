"""`prune`: prune a model, measure it and save it. torch is loaded when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.cli import options
from core.cli.ask import RUNS, detached, emit_run, foreground, read_spec_file, with_errors
from core.cli.recover import AGAIN
from core.cli.terminal import keys_and_values, perplexity_lines, score_lines
from core.errors import SpecError
from core.results.quantities import BUDGETS
from core.runs.artifacts import read_metrics, read_spec
from core.runs.request import FIELDS, Given, ask_to_prune
from core.spec.checks import check_name
from core.spec.choices import STRATEGIES

#: What `prune` prints of `metrics.json`, after the run's directory.
RESULT = ("params_before", "params_after", "sparsity", "sparsity_total", "ppl_before", "ppl_after", "seconds")
#: The same where the pruned model was trained, and where the couplings were ignored.
TRAINED = ("ppl_pruned", "ppl_recovered")
ABLATED = ("ppl_coupled", "ppl_coupled_recovered", "without_dependency")
#: A row per text for perplexity, with all that its numbers depend on.
TEXTS = "perplexities"
#: Benchmarks, if the run has some: of the dense model, the pruned one and the final one.
SCORED = ("tasks_before", "tasks_pruned", "tasks_after")


@options.takes("prune")
def prune(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="'demo', a hub id, a folder, a .gguf file, or a pruned run."),
    ] = None,
    given: Given = FIELDS,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            metavar="NAME",
            help="Short for --kinds: block (heads and FFN channels) or channel (hidden channels).",
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Remove exactly the units in this plan.json."),
    ] = None,
    spec_file: Annotated[
        Path | None,
        typer.Option(
            "--spec", metavar="FILE", help="A saved spec.json to run again; other options change its fields."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="The whole run: recommended (no training), minutes or hour (of training). Or the recipe of "
            "a training: with --recover, demo (two cores, 20 minutes) or paper (LLM-Pruner); a --method that "
            "trains has presets of its own, see `methods`.",
        ),
    ] = None,
    detach: options.Detach = False,
    runs_dir: options.RunsDir = RUNS,
    as_json: options.Json = False,
) -> None:
    """Prune a model, measure it before and after, and save it."""
    if model is None and spec_file is None:
        raise SpecError("prune needs a MODEL, got none; give 'demo', a hub id, a folder or a .gguf file.")
    changes, base = dict(given), read_spec_file(spec_file)
    if strategy is not None:
        changes["prune.kinds"] = _kinds_of(strategy, given.get("prune.kinds"))
    spec = ask_to_prune(model, changes, base, preset=preset, plan=plan)
    if detach:
        return detached(runs_dir, spec, as_json)
    run_dir = foreground(runs_dir, spec)
    metrics = read_metrics(run_dir)
    result = {
        key: metrics[key]
        for key in (BUDGETS, *RESULT, *AGAIN, *TRAINED, *ABLATED, *SCORED, TEXTS)
        if key in metrics
    }
    plain = {key: value for key, value in result.items() if key not in (*SCORED, TEXTS, BUDGETS)}
    if why := read_spec(run_dir).extra.get("recommended"):
        result["recommended"] = why
    shown = [each["words"] for each in metrics.get(BUDGETS, ())]
    shown += [*keys_and_values(with_errors(plain, metrics)), *perplexity_lines(metrics)]
    shown += [f"recommended: {why}"] if why else []
    scores = {key.removeprefix("tasks_"): metrics[key] for key in SCORED if key in metrics}
    return emit_run(run_dir, result, as_json, [*shown, *score_lines(scores)])


def _kinds_of(strategy: str, kinds: tuple[str, ...] | None) -> tuple[str, ...]:
    check_name("strategy", strategy, list(STRATEGIES))
    if kinds is not None:
        raise SpecError(f"--strategy {strategy} says which kinds go; leave out --kinds {','.join(kinds)}.")
    return STRATEGIES[strategy]
