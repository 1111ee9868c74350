"""`recover`: train the result of a pruning run. torch is loaded when it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core.cli import options
from core.cli.ask import RUNS, detached, emit_run, foreground, source_of, with_errors
from core.cli.terminal import keys_and_values, perplexity_lines
from core.errors import ArtifactError
from core.runs.artifacts import read_metrics, read_spec
from core.runs.request import FIELDS, Given, ask
from core.spec.recover import recover_preset
from core.spec.run import RunSpec

#: What `recover` prints of `metrics.json`, after the run's directory.
RESULT = ("ppl_before", "ppl_pruned", "ppl_recovered", "ppl_after", "recover_steps", "recover_best_step")
SIZES = ("params_before", "params_after", "sparsity", "sparsity_total", "seconds")
#: All cuts together, against the first base, where the model that was cut had been pruned before.
AGAIN = ("base", "params_base", "sparsity_base", "sparsity_total_base")


@options.takes("recover")
def recover(
    run: options.PrunedRun,
    preset: options.Preset = None,
    given: Given = FIELDS,
    detach: options.Detach = False,
    runs_dir: options.RunsDir = RUNS,
    as_json: options.Json = False,
) -> None:
    """Train the result of a pruning run back. It is measured as that run was, and saved."""
    source = source_of(runs_dir, run)
    base = replace(_spec_of(Path(source)), recover=recover_preset(preset or "paper"), name="", extra={})
    spec = ask("recover", source, given, base)
    if detach:
        return detached(runs_dir, spec, as_json)
    run_dir = foreground(runs_dir, spec)
    metrics = read_metrics(run_dir)
    again = [key for key in AGAIN if key in metrics]
    result = {key: metrics[key] for key in (*RESULT, *SIZES, *again)}
    lines = [*keys_and_values(with_errors(result, metrics)), *perplexity_lines(metrics)]
    return emit_run(run_dir, {**result, "perplexities": metrics["perplexities"]}, as_json, lines)


def _spec_of(source: Path) -> RunSpec:
    """The spec of the recovered run, so that it is measured alike; defaults for a folder without one."""
    try:
        return read_spec(source)
    except ArtifactError:
        return RunSpec()
