"""`sweep`: measure many ways to prune one model. torch is loaded when it runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from core.cli import options
from core.cli.ask import RUNS, ask, detached, emit_run, foreground, seconds
from core.cli.terminal import table
from core.results.sweep import Point, Sweep, read_sweep
from core.results.words import with_error


@options.takes("sweep")
def sweep(
    model: options.ModelArgument,
    given: options.Given = options.FIELDS,
    detach: options.Detach = False,
    runs_dir: options.RunsDir = RUNS,
    as_json: options.Json = False,
) -> None:
    """Measure many ways to prune one model.

    Every combination of methods, sparsities, scopes, seeds and calibration sizes is a point.
    """
    spec = ask("sweep", model, given)
    if detach:
        return detached(runs_dir, spec, as_json)
    run_dir = foreground(runs_dir, spec)
    swept = read_sweep(run_dir)
    result = {
        "seconds": seconds(run_dir),
        "baseline_ppl": swept.ppl,
        "baseline_stderr": swept.ppl_stderr,
        "params_before": swept.params,
        "points": _points(swept),
    }
    return emit_run(run_dir, result, as_json, _lines(swept))


def _points(swept: Sweep) -> list[dict[str, Any]]:
    front = {point.key for point in swept.front()}
    return [
        {**asdict(point), "verdict": swept.change(point).verdict, "pareto": point.key in front}
        for point in swept.points
    ]


def _lines(swept: Sweep) -> list[str]:
    front = {point.key for point in swept.front()}
    head = ["method", "asked", "scope", "refit", "seed", "windows", "of all", "perplexity", ""]
    rows = [_row(swept, point, point.key in front) for point in swept.points]
    caption = f"perplexity on {swept.text}, {swept.tokens:,} tokens in windows of {swept.window}"
    caption += f", ± one standard error over {swept.windows} windows" if swept.ppl_stderr is not None else ""
    return [
        f"unpruned: {with_error(swept.ppl, swept.ppl_stderr, ',.4g')}",
        *table([head, *rows]),
        "* on the Pareto front",
        caption,
    ]


def _row(swept: Sweep, point: Point, best: bool) -> list[str]:
    place = [point.method, f"{point.target:.1%}", point.scope, point.reconstruct, str(point.seed)]
    of_all = "-" if point.sparsity_total is None else f"{point.sparsity_total:.1%}"
    measured = point.error if point.ppl is None else with_error(point.ppl, point.ppl_stderr, ",.4g")
    measured += ", within the noise" if swept.change(point).verdict == "noise" else ""
    return [*place, str(point.samples), of_all, measured, "*" if best else ""]
