"""The numbers of a run before and after, with how sure they are."""

from __future__ import annotations

from core.report.charts import Table
from core.report.run import Run
from core.results.efficiency import Efficiency
from core.results.noise import error_of, perplexity_difference, time_difference
from core.results.quantities import QUANTITIES, Quantity
from core.results.words import measured_on, with_error

#: How names in `metrics.json` end of what was measured with weights in 8 bits.
INT8 = "_int8"
#: What the verdict on a difference adds to it.
VERDICTS = {"noise": ", within the noise", "unknown": ", noise unknown"}


def numbers(run: Run) -> Table | None:
    """Before and after side by side; where a model was trained, the pruned one stands between."""
    metrics = run.metrics
    if "ppl" in metrics:
        alone = [
            (title, _shown(run, quantity, ending, ""))
            for title, quantity, ending in _quantities()
            if quantity.name + ending in metrics
        ]
        return Table(["", "model"], alone, _measured_on(run))
    if "ppl_after" not in metrics:
        return None
    trained = "ppl_pruned" in metrics
    head = ["", "dense", *(["pruned", "recovered"] if trained else ["pruned"]), "change"]
    rows = []
    for title, quantity, ending in _quantities():
        key = quantity.name + ending
        before, after = metrics.get(f"{key}_before"), metrics.get(f"{key}_after")
        if before is None and after is None:
            continue
        middle = "_pruned" if key == "ppl" else "_after"  # training changes no size and no speed
        sides = ("_before", *((middle,) if trained else ()), "_after")
        change = "-"
        if before and after is not None:
            change = f"{after / before - 1:+.1%}{_noise(run, quantity, ending)}"
        rows.append((title, *(_shown(run, quantity, ending, side) for side in sides), change))
    return Table(head, rows, _measured_on(run))


def _quantities() -> list[tuple[str, Quantity, str]]:
    """Title, quantity and how its names end; after all of them the same with weights in 8 bits."""
    small = [(f"{quantity.full_title}, in 8 bits", quantity, INT8) for quantity in QUANTITIES.values()]
    return [(quantity.full_title, quantity, "") for quantity in QUANTITIES.values()] + small


def _shown(run: Run, quantity: Quantity, ending: str, side: str) -> str:
    """A quantity as written; of a perplexity with its standard error, of a time with half its spread."""
    timed, key = _timed(run, ending, side), f"{quantity.name}{ending}{side}"
    error = timed.error(quantity.name) if timed and quantity.timed else error_of(run.metrics, key)
    return with_error(run.metrics.get(key), error, quantity.form)


def _timed(run: Run, ending: str, side: str) -> Efficiency | None:
    """The times of a model of the run, `side` as `metrics.json` ends its names."""
    final = "recovered" if "recovered" in run.efficiency else "pruned"
    model = {"": "model", "_before": "dense"}.get(side, final)
    return run.efficiency.get(f"{model} int8" if ending else model)


def _noise(run: Run, quantity: Quantity, ending: str) -> str:
    """What may be chance in the change of a perplexity or a time; nothing of what is counted."""
    verdict = "unknown"
    if quantity.timed:
        then, now = (_timed(run, ending, side) for side in ("_before", "_after"))
        if then and now:
            verdict = time_difference(then.timed(quantity.name), now.timed(quantity.name)).verdict
    elif quantity.name == "ppl":
        final = "recovered" if "ppl_recovered" in run.metrics else "pruned"
        bits = " int8" if ending else ""
        before, after = (run.perplexities.get(f"{side}{bits}") for side in ("dense", final))
        if before and after:
            verdict = perplexity_difference(before, after).verdict
    else:
        return ""
    return VERDICTS.get(verdict, "")


def _measured_on(run: Run) -> str:
    metrics = run.metrics
    said = f"Perplexity on {measured_on(metrics) or 'no text'}."
    if metrics.get("ppl_windows"):
        said += f" ± one standard error over {metrics['ppl_windows']} windows."
    if run.efficiency:
        said += " Times: median, ± half of slowest minus fastest."
    if metrics.get("calibration_text"):
        said += f" Calibrated on {metrics['calibration_text']}."
    if metrics.get("recover_data"):
        steps, best = metrics["recover_steps"], metrics["recover_best_step"]
        said += f" Recovered on {metrics['recover_data']}, best after {best} of {steps} steps."
    return said
