"""`sweep`: measure many ways to prune one model. torch is loaded when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from core.cli import options
from core.cli.ask import RUNS, detached, emit_run, foreground, seconds
from core.cli.terminal import table
from core.results.quantities import perplexity_titles
from core.results.sweep import Sweep, read_sweep
from core.results.words import divergence, measured_on, with_error
from core.runs.request import FIELDS, Given, ask
from core.spec.depth import NOTHING


@options.takes("sweep")
def sweep(
    model: options.ModelArgument,
    given: Given = FIELDS,
    detach: options.Detach = False,
    runs_dir: options.RunsDir = RUNS,
    as_json: options.Json = False,
) -> None:
    """Measure many ways to prune one model.

    Every combination of methods, sparsities, scopes, refits, blocks that go, seeds and calibration sizes is a
    point.
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
        "calibration": swept.calibration,
        "texts": [asdict(text) for text in swept.texts],
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
    on = [swept.on(number) for number in range(len(swept.texts))]
    titles = perplexity_titles([{"ppl_text": each.text} for each in on])
    head = ["method", "asked", "scope", "refit", "drop", "seed", "windows", "of all", *titles]
    rows = [_row(on, number) for number in range(len(swept.points))]
    error = f", ± one standard error over {swept.windows} windows" if swept.ppl_stderr is not None else ""
    return [
        *(f"unpruned on {each.text}: {with_error(each.ppl, each.ppl_stderr, ',.4g')}" for each in on),
        *table([head, *rows]),
        f"* on the Pareto front{' of the text' if len(on) > 1 else ''}",
        *(f"perplexity on {measured_on(each.measured_on())}{error}" for each in on),
        f"calibrated on {swept.calibration}",
    ]


def _row(on: Sequence[Sweep], number: int) -> list[str]:
    """A point's line: a cell per text."""
    point = on[0].points[number]
    place = [point.method, f"{point.target:.1%}", point.scope, point.reconstruct, point.drop or NOTHING]
    of_all = "-" if point.sparsity_total is None else f"{point.sparsity_total:.1%}"
    return [*place, str(point.seed), str(point.samples), of_all, *(_cell(each, number) for each in on)]


def _cell(swept: Sweep, number: int) -> str:
    point = swept.points[number]
    measured = point.error or "-" if point.ppl is None else with_error(point.ppl, point.ppl_stderr, ",.4g")
    measured += "" if point.kl is None else f" ({divergence(point.kl)})"
    noise = ", within the noise" if swept.change(point).verdict == "noise" else ""
    return measured + noise + (" *" if point in swept.front() else "")
