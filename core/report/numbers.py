"""The numbers of a run before and after, with how sure they are."""

from __future__ import annotations

from core.plan.records import KV_BITS
from core.report.markup import Markup, element, join, table
from core.report.run import Run
from core.results.efficiency import SPREADS, Efficiency
from core.results.noise import error_of, perplexity_difference, time_difference
from core.results.words import with_error

#: Quantity -> (name in `metrics.json`, how it is written).
QUANTITIES = {
    "Perplexity": ("ppl", ",.2f"),
    "Parameters": ("params", ",d"),
    "Multiply-accumulates per token": ("macs", ",d"),
    f"Key-value cache, bytes per token at {KV_BITS} bits": ("kv_bytes_per_token", ",d"),
    "Reading a prompt, ms": ("latency_ms", ",.1f"),
    "Writing, tokens per second": ("tokens_per_second", ",.1f"),
    "Memory, GiB": ("memory_gib", ",.3f"),
    "In 8 bits: perplexity": ("ppl_int8", ",.2f"),
    "In 8 bits: reading a prompt, ms": ("latency_ms_int8", ",.1f"),
    "In 8 bits: memory, GiB": ("memory_gib_int8", ",.3f"),
}
#: What the verdict on a difference adds to it.
VERDICTS = {"noise": ", within the noise", "unknown": ", noise unknown"}


def numbers(run: Run) -> Markup:
    """Before and after side by side; where a model was trained, the pruned one stands between."""
    found = run.metrics
    if "ppl" in found:
        rows = [
            (name, _shown(run, key, "", form)) for name, (key, form) in QUANTITIES.items() if key in found
        ]
        return join([table(["", "model"], rows), _measured_on(run)])
    if "ppl_after" not in found:
        return Markup()
    trained = "ppl_pruned" in found
    head = ["", "dense", *(["pruned", "recovered"] if trained else ["pruned"]), "change"]
    rows_ = []
    for name, (key, form) in QUANTITIES.items():
        before, after = found.get(f"{key}_before"), found.get(f"{key}_after")
        if before is None and after is None:
            continue
        middle = "_pruned" if key == "ppl" else "_after"  # training changes no size and no speed
        sides = ("_before", *((middle,) if trained else ()), "_after")
        change = f"{after / before - 1:+.1%}" if before and after is not None else "-"
        change += _noise(run, key) if change != "-" else ""
        rows_.append((name, *(_shown(run, key, side, form) for side in sides), change))
    return join([table(head, rows_), _measured_on(run)])


def _shown(run: Run, key: str, side: str, form: str) -> str:
    """A quantity as written; of a perplexity with its standard error, of a time with half its spread."""
    name, timed = key.removesuffix("_int8"), _timed(run, key, side)
    error = timed.error(name) if timed and name in SPREADS else error_of(run.metrics, f"{key}{side}")
    return with_error(run.metrics.get(f"{key}{side}"), error, form)


def _timed(run: Run, key: str, side: str) -> Efficiency | None:
    """The times of a model of the run, `side` as `metrics.json` ends its names."""
    final = "recovered" if "recovered" in run.efficiency else "pruned"
    model = {"": "model", "_before": "dense"}.get(side, final)
    return run.efficiency.get(f"{model} int8" if key.endswith("_int8") else model)


def _noise(run: Run, key: str) -> str:
    """What may be chance in the change of a perplexity or a time; nothing of what is counted."""
    name, ending = key.removesuffix("_int8"), " int8" if key.endswith("_int8") else ""
    verdict = "unknown"
    if name in SPREADS:
        then, now = (_timed(run, key, side) for side in ("_before", "_after"))
        if then and now:
            verdict = time_difference(then.timed(name), now.timed(name)).verdict
    elif name == "ppl":
        final = "recovered" if "ppl_recovered" in run.metrics else "pruned"
        before, after = (run.perplexities.get(f"{side}{ending}") for side in ("dense", final))
        if before and after:
            verdict = perplexity_difference(before, after).verdict
    else:
        return ""
    return VERDICTS.get(verdict, "")


def _measured_on(run: Run) -> Markup:
    found = run.metrics
    said = (
        f"Perplexity on {found.get('ppl_text')}, {found.get('ppl_tokens')} tokens in windows of "
        f"{found.get('ppl_window')}."
    )
    if found.get("ppl_windows"):
        said += f" ± one standard error over {found['ppl_windows']} windows."
    if run.efficiency:
        said += " Times: median, ± half of slowest minus fastest."
    if found.get("calibration_text"):
        said += f" Calibrated on {found['calibration_text']}."
    if found.get("recover_data"):
        steps, best = found["recover_steps"], found["recover_best_step"]
        said += f" Recovered on {found['recover_data']}, best after {best} of {steps} steps."
    return element("p", said, class_="quiet")
