"""The numbers of a run before and after, with how sure they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.report.charts import Table
from core.report.run import Run
from core.results.efficiency import Efficiency
from core.results.noise import error_of, perplexity_difference, time_difference
from core.results.perplexity import by_text, on_text
from core.results.quantities import OF_TEXTS, QUANTITIES, Quantity, int8_words, perplexity_titles
from core.results.words import calibrated_on, measured_on, with_error

#: How names in `metrics.json` end of what was measured with weights in 8 bits.
INT8 = "_int8"
#: What the verdict on a difference adds to it.
VERDICTS = {"noise": ", within the noise", "unknown": ", noise unknown"}


@dataclass(frozen=True)
class Line:
    """A quantity on a row of its own; a perplexity on a row per text.

    Attributes:
        ending: of its names in `values`, empty or `INT8`; text: which text it is of, 0 the first.
    """

    title: str
    quantity: Quantity
    ending: str
    values: Mapping[str, Any]
    text: int = 0

    @property
    def key(self) -> str:
        """Its name in `values`, without its side."""
        return self.quantity.name + self.ending


def numbers(run: Run) -> Table | None:
    """Before and after side by side; where a model was trained, the pruned one stands between."""
    metrics = run.metrics
    if "ppl" in metrics:
        alone = [(line.title, _shown(run, line, "")) for line in _lines(run) if line.key in line.values]
        return Table(["", "model"], alone, _measured_on(run))
    if "ppl_after" not in metrics:
        return None
    trained = "ppl_pruned" in metrics
    beside = "ppl_control" in metrics  # the dense model, trained on the same text
    models = ["pruned", "recovered"] if trained else ["pruned"]
    head = ["", "dense", *(["dense, trained alike"] if beside else []), *models, "change"]
    rows = []
    for line in _lines(run):
        before, after = (line.values.get(f"{line.key}_{side}") for side in ("before", "after"))
        if before is None and after is None:
            continue
        middle = "_pruned" if line.key in OF_TEXTS else "_after"  # training changes no size and no speed
        control = ("_control",) if beside else ()
        sides = ("_before", *control, *((middle,) if trained else ()), "_after")
        change = "-"
        if before and after is not None:
            change = f"{after / before - 1:+.1%}{_noise(run, line)}"
        rows.append((line.title, *(_shown(run, line, side) for side in sides), change))
    return Table(head, rows, _measured_on(run))


def _lines(run: Run) -> list[Line]:
    """Every quantity in order; after all of them the same with weights in 8 bits."""
    texts, lines = by_text(run.metrics), list[Line]()
    for ending, also in (("", ""), (INT8, ", in 8 bits")):
        for quantity in QUANTITIES.values():
            if quantity.name not in OF_TEXTS:
                lines.append(Line(f"{quantity.full_title}{also}", quantity, ending, run.metrics))
                continue
            titles = [f"{title}{also}" for title in perplexity_titles(texts, quantity.name)]
            lines += [
                Line(title, quantity, ending, row, number)
                for number, (title, row) in enumerate(zip(titles, texts, strict=True))
            ]
    return lines


def _shown(run: Run, line: Line, side: str) -> str:
    """A quantity as written; of a perplexity with its standard error, of a time with half its spread."""
    timed, key = _timed(run, line.ending, side), f"{line.key}{side}"
    quantity, values = line.quantity, line.values
    error = timed.error(quantity.name) if timed and quantity.timed else error_of(values, key)
    return with_error(values.get(key), error, quantity.form)


def _timed(run: Run, ending: str, side: str) -> Efficiency | None:
    """The times of a model of the run, `side` as `metrics.json` ends its names."""
    final = "recovered" if "recovered" in run.efficiency else "pruned"
    model = {"": "model", "_before": "dense", "_control": "none"}.get(side, final)
    return run.efficiency.get(f"{model} int8" if ending else model)


def _noise(run: Run, line: Line) -> str:
    """What may be chance in the change of a perplexity or a time; nothing of what is counted."""
    verdict, name = "unknown", line.quantity.name
    if line.quantity.timed:
        then, now = (_timed(run, line.ending, side) for side in ("_before", "_after"))
        if then and now:
            verdict = time_difference(then.timed(name), now.timed(name)).verdict
    elif name == "ppl":
        final = "recovered" if "ppl_recovered" in run.metrics else "pruned"
        bits = " int8" if line.ending else ""
        before, after = (
            on_text(run.perplexities.get(f"{side}{bits}", ()), line.text, line.values.get("ppl_sha256"))
            for side in ("dense", final)
        )
        if before and after:
            verdict = perplexity_difference(before, after).verdict
    else:
        return ""
    return VERDICTS.get(verdict, "")


def _measured_on(run: Run) -> str:
    metrics, texts = run.metrics, by_text(run.metrics)
    said = f"Perplexity on {'; on '.join(map(measured_on, texts)) or 'no text'}."
    if counts := [f"{row['ppl_windows']}" for row in texts if row.get("ppl_windows")]:
        said += f" ± one standard error over {' and '.join(counts)} windows."
    if run.efficiency:
        said += " Times: median, ± half of slowest minus fastest."
    if kinds := [name for name in metrics if name.startswith(f"ppl{INT8}")]:
        said += " " + int8_words(metrics.get(f"kind{kinds[0].removeprefix('ppl')}"))
    if calibrated := calibrated_on(texts[0] if texts else {}):
        said += f" Calibrated on {calibrated}."
    if metrics.get("recover_data"):
        steps, best = metrics["recover_steps"], metrics["recover_best_step"]
        said += f" Recovered on {metrics['recover_data']}, best after {best} of {steps} steps."
    return said
