"""`evaluate`: measure a model or the result of a run."""

from __future__ import annotations

from core.cli import options
from core.cli.ask import RUNS, foreground, source_of, with_errors
from core.cli.terminal import emit, keys_and_values, perplexity_lines, score_lines
from core.runs.artifacts import read_metrics
from core.runs.request import FIELDS, Given, ask

#: What `evaluate` prints, and the errors of it, which people read after a ±.
MEASURED = ("ppl", "tasks", "params", "macs", "latency_ms", "tokens_per_second", "memory_gib")
HOW_SURE = ("ppl_stderr", "latency_spread_ms", "tokens_per_second_spread")


@options.takes("evaluate")
def evaluate(
    model: options.ModelOrRun,
    given: Given = FIELDS,
    runs_dir: options.RunsDir = RUNS,
    as_json: options.Json = False,
) -> None:
    """Measure a model or a run: perplexity, size, speed, memory."""
    run_dir = foreground(runs_dir, ask("evaluate", source_of(runs_dir, model), given))
    metrics = read_metrics(run_dir)
    result = {key: metrics[key] for key in (*MEASURED, *HOW_SURE, "perplexities")}
    shown = with_errors({key: result[key] for key in MEASURED if key != "tasks"}, metrics)
    scores = score_lines({"score": metrics["tasks"]})
    emit(result, as_json, [*keys_and_values(shown), *perplexity_lines(metrics), *scores, f"run  {run_dir}"])
