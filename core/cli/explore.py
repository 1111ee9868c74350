"""`score`, `similarity`, `sensitivity`, `explore`: analyse a model. torch is loaded when one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.cli import options
from core.cli.ask import GROUPS_ALONE, RUNS, emit_run, foreground, seconds
from core.cli.terminal import table
from core.results.activations import ACTIVATIONS
from core.results.noise import Difference, kept_difference
from core.results.scores import read_scores
from core.results.sensitivity import Sensitivity, read_sensitivity
from core.results.words import with_error
from core.runs.artifacts import read_metrics
from core.runs.request import FIELDS, Given, ask


@options.takes("score")
def score(
    model: options.ModelArgument,
    given: Given = FIELDS,
    runs_dir: options.RunsDir = RUNS,
    as_json: options.Json = False,
) -> None:
    """Score every unit: how much each would be missed."""
    spec = ask("explore", model, {**given, "explore.analyses": ("groups", "scores")})
    run_dir = foreground(runs_dir, spec)
    scored = list(read_scores(run_dir))
    result = {"seconds": seconds(run_dir), "criteria": scored, "activations": _activations(run_dir)}
    emit_run(run_dir, result, as_json, [f"scored by {', '.join(scored)}"])


@options.takes("similarity")
def similarity(
    model: options.ModelArgument,
    given: Given = FIELDS,
    runs_dir: options.RunsDir = RUNS,
    as_json: options.Json = False,
) -> None:
    """Compare how the heads of each layer attend. Heads closer than tau say the same."""
    spec = ask("explore", model, {**given, "explore.analyses": ("groups", "similarity")})
    run_dir = foreground(runs_dir, spec)
    layers: list[dict[str, Any]] = read_metrics(run_dir)["similar_heads"]
    rows = [["layer", "heads", f"pairs below {spec.explore.tau:g}", "candidates"]]
    for layer in layers:
        *numbers, candidates = layer.values()
        rows.append([*map(str, numbers), " ".join(map(str, candidates)) or "-"])
    emit_run(run_dir, {"layers": layers}, as_json, table(rows))


@options.takes("sensitivity")
def sensitivity(
    model: options.ModelArgument,
    given: Given = FIELDS,
    runs_dir: options.RunsDir = RUNS,
    as_json: options.Json = False,
) -> None:
    """Measure perplexity with a single layer pruned. Attention and FFN take turns."""
    spec = ask("explore", model, {**given, "explore.analyses": ("groups", "sensitivity")})
    run_dir = foreground(runs_dir, spec)
    scanned = read_sensitivity(run_dir)
    keys = ("layer", "kind", "ratio", "unit", "ppl", "ppl_stderr", "change_stderr")
    layers = [
        {**{key: point[key] for key in keys if key in point}, "verdict": _change(scanned, point).verdict}
        for point in scanned.points
    ]
    rows = [["layer", "kind", "removed", "perplexity"]]
    rows += [[str(row["layer"]), _kind(row), f"{row['ratio']:.1%}", _perplexity(row)] for row in layers]
    result = {
        "baseline_ppl": scanned.baseline_ppl,
        "baseline_stderr": scanned.baseline_stderr,
        "layers": layers,
    }
    dense = f"unpruned: {with_error(scanned.baseline_ppl, scanned.baseline_stderr, ',.4g')}"
    emit_run(run_dir, result, as_json, [dense, *table(rows)])


def _activations(run_dir: Path) -> str | None:
    """Where the sizes of features stand, or None where no criterion read a text."""
    return str(run_dir / ACTIVATIONS) if (run_dir / ACTIVATIONS).is_file() else None


def _change(scanned: Sensitivity, point: dict[str, Any]) -> Difference:
    return kept_difference(scanned.baseline_ppl, point["ppl"], point["change_stderr"], scanned.windows)


def _perplexity(point: dict[str, Any]) -> str:
    """A point's perplexity with its standard error, and whether the change may be chance."""
    noise = ", within the noise" if point["verdict"] == "noise" else ""
    return with_error(point["ppl"], point["ppl_stderr"], ",.4g") + noise


def _kind(point: dict[str, Any]) -> str:
    return f"head {point['unit']}" if "unit" in point else str(point["kind"])


@options.takes("explore")
def explore(
    model: options.ModelArgument,
    given: Given = FIELDS,
    runs_dir: options.RunsDir = RUNS,
    as_json: options.Json = False,
) -> None:
    """Make several analyses of a model in one run."""
    spec = ask("explore", model, {**(GROUPS_ALONE if given.get("explore.config_only") else {}), **given})
    run_dir = foreground(runs_dir, spec)
    result = {
        "seconds": seconds(run_dir),
        "analyses": list(spec.explore.analyses),
        "activations": _activations(run_dir),
    }
    emit_run(run_dir, result, as_json, [", ".join(spec.explore.analyses)])
