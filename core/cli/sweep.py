"""The command that measures many ways to prune one model. torch is loaded when it runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from core.cli import options
from core.cli.ask import RUNS, ask, detached, emit_run, foreground, seconds
from core.cli.terminal import table
from core.results.sweep import Point, Sweep, read_sweep
from core.results.words import with_error
from core.runs.records import record


@options.takes("sweep")
def sweep(
    model: options.ModelArgument,
    given: options.Given = options.FIELDS,
    detach: options.Detach = False,
    runs_dir: options.RunsDir = RUNS,
    as_json: options.Json = False,
) -> None:
    """Measure every combination of methods, sparsities, scopes, seeds and calibration sizes."""
    spec = ask("sweep", model, given)
    if detach:
        run_dir = detached(runs_dir, spec)
        return emit_run(run_dir, {"id": run_dir.name}, as_json, [f"state   {record(run_dir)['state']}"])
    run_dir = foreground(runs_dir, spec)
    found = read_sweep(run_dir)
    result = {
        "seconds": seconds(run_dir),
        "baseline_ppl": found.ppl,
        "baseline_stderr": found.ppl_stderr,
        "params_before": found.params,
        "points": _points(found),
    }
    return emit_run(run_dir, result, as_json, _lines(found))


def _points(found: Sweep) -> list[dict[str, Any]]:
    front = {point.key for point in found.front()}
    return [
        {**asdict(point), "verdict": found.change(point).verdict, "pareto": point.key in front}
        for point in found.points
    ]


def _lines(found: Sweep) -> list[str]:
    front = {point.key for point in found.front()}
    head = ["method", "asked", "scope", "refit", "seed", "windows", "of all", "perplexity", ""]
    rows = [_row(found, point, point.key in front) for point in found.points]
    said = f"perplexity on {found.text}, {found.tokens:,} tokens in windows of {found.window}"
    said += f", ± one standard error over {found.windows} windows" if found.ppl_stderr is not None else ""
    return [
        f"unpruned: {with_error(found.ppl, found.ppl_stderr, ',.4g')}",
        *table([head, *rows]),
        "* on the Pareto front",
        said,
    ]


def _row(found: Sweep, point: Point, best: bool) -> list[str]:
    asked = [point.method, f"{point.target:.1%}", point.scope, point.reconstruct, str(point.seed)]
    of_all = "-" if point.sparsity_total is None else f"{point.sparsity_total:.1%}"
    measured = point.error if point.ppl is None else with_error(point.ppl, point.ppl_stderr, ",.4g")
    measured += ", within the noise" if found.change(point).verdict == "noise" else ""
    return [*asked, str(point.samples), of_all, measured, "*" if best else ""]
