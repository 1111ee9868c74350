"""What the runs of the quality bench came to: means with errors as a table, and quality over minutes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: Stages that train.
TRAINING = ("train", "recover")


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        minutes: that its training took; ppl, kl: text -> value of the final model; dense: of the dense one.
    """

    method: str
    sparsity: float
    budget: str
    minutes: float
    ppl: dict[str, float]
    kl: dict[str, float]
    dense: dict[str, float]


def result_of(run_dir: Path, method: str, sparsity: float, budget: str) -> Result:
    """Read a finished run. Raises ArtifactError."""
    from core.runs.artifacts import read_metrics

    texts = read_metrics(run_dir)["perplexities"]
    assert isinstance(texts, list), "every run of this release has a row per text"
    values = [
        {row["ppl_text"]: row[name] for row in texts} for name in ("ppl_after", "kl_after", "ppl_before")
    ]
    return Result(method, sparsity, budget, seconds_of(run_dir) / 60, *values)


def seconds_of(run_dir: Path) -> float:
    """How long a run trained, what it did before it was interrupted included."""
    from core.runs.artifacts import EVENTS
    from core.runs.events import EventReader

    spent, began, last = 0.0, None, 0.0
    for event in EventReader(run_dir / EVENTS).read():
        if event.type == "stage":
            if began is not None:  # up to here, or to the last that was heard before an interruption
                spent += (last if event.stage == "load" else event.time) - began
            began = event.time if event.stage in TRAINING else None
        last = event.time
    return spent


def rows(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """A row per method, sparsity and budget: means over the seeds with their standard errors."""
    texts = list(dict.fromkeys(text for result in results for text in result.ppl))
    heads = [part for text in texts for part in (f"perplexity, {text}", f"nats from dense, {text}")]
    lines = []
    for method, sparsity, budget in dict.fromkeys((r.method, r.sparsity, r.budget) for r in results):
        those = [r for r in results if (r.method, r.sparsity, r.budget) == (method, sparsity, budget)]
        cells = [mean_of([r.minutes for r in those], 1)]
        for text in texts:
            cells += [mean_of([r.ppl[text] for r in those], 2), mean_of([r.kl[text] for r in those], 3)]
        lines.append([method, f"{sparsity:.0%}", budget, str(len(those)), *cells])
    dense = [part for text in texts for part in (f"{results[0].dense[text]:.2f}", "0")]
    lines.append(["dense", "0%", "-", "-", "-", *dense])
    return ["method", "sparsity", "equal", "seeds", "minutes", *heads], lines


def mean_of(values: Sequence[float], digits: int) -> str:
    """`30.12 ± 0.41`, the standard error of the mean; of one value itself."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {statistics.stdev(values) / math.sqrt(len(values)):.{digits}f}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The same for Markdown."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *lines))


def page(results: Sequence[Result]) -> str:
    """Quality over minutes, a chart per sparsity and text, for a browser."""
    from core.report.charts import lines, render

    charts = []
    for sparsity in dict.fromkeys(result.sparsity for result in results):
        for text in results[0].ppl:
            if curves := over_minutes([r for r in results if r.sparsity == sparsity], text):
                charts.append(lines(f"Perplexity of {text} over minutes of training, {sparsity:.0%}", curves))
    return str(render("report.html", title="Quality over minutes", overview=None, sections=charts))


def over_minutes(results: Sequence[Result], text: str) -> dict[str, list[tuple[float, float]]]:
    """Method -> mean minutes and perplexity of each budget, after the cut that nothing trained."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for method, budget in dict.fromkeys((result.method, result.budget) for result in results):
        those = [r for r in results if (r.method, r.budget) == (method, budget)]
        mean = (statistics.fmean(r.minutes for r in those), statistics.fmean(r.ppl[text] for r in those))
        curves.setdefault(method, []).append(mean)
    cut = curves.pop("cut", [])
    full = {method: sorted([*cut, *ends]) for method, ends in curves.items()}
    return {method: ends for method, ends in full.items() if len(ends) > 1}
