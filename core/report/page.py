"""One HTML file for any number of runs: no script, no request, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import ArtifactError, InputError
from core.files import write_text
from core.report.charts import Table, render
from core.report.run import Run
from core.report.sections import section
from core.results.perplexity import by_text
from core.results.words import calibrated_on, measured_on, number, with_error


def write_report(run_dirs: Sequence[Path], file: Path) -> Path:
    """Write the report of these runs, in that order.

    Returns:
        The file, absolute.

    Raises:
        InputError: a run cannot be read. StorageError: the file cannot be written.
    """
    runs = []
    for run_dir in run_dirs:
        try:
            runs.append(Run(run_dir))
        except ArtifactError as error:
            raise InputError(f"{run_dir.name} cannot be reported: {error} Leave it out.") from error
    file = file.expanduser().absolute()
    write_text(file, document(runs))
    return file


def document(runs: Sequence[Run]) -> str:
    """The whole page."""
    title = runs[0].title if len(runs) == 1 else f"{len(runs)} runs"
    table = overview(runs) if len(runs) > 1 else None
    return str(render("report.html", title=title, overview=table, sections=[section(run) for run in runs]))


def overview(runs: Sequence[Run]) -> Table:
    """All runs in one table, a row per evaluation text, each led by its run and with all it depends on."""
    rows = []
    for run in runs:
        metrics = run.metrics
        params = number(metrics.get("params_after", metrics.get("params")), ",d")
        size = [run.spec.model.source, number(metrics.get("sparsity_total"), ".1%"), params]
        rows += [[run, *size, *_perplexity(row)] for row in by_text(metrics) or [{}]]
    head = ["run", "model", "removed of all", "parameters", "ppl dense", "ppl pruned", "ppl final"]
    return Table([*head, "measured on", "calibrated on"], rows)


def _perplexity(row: Mapping[str, Any]) -> list[str]:
    """Dense, pruned and final; then what they were measured on, and what chose the units that went."""
    ppl = [
        with_error(row.get(f"ppl_{when}"), row.get(f"ppl_stderr_{when}"), ",.2f")
        for when in ("before", "pruned", "after")
    ]
    if "ppl_pruned" not in row:
        ppl[1] = ppl[2]
    return [*ppl, measured_on(row) or "-", calibrated_on(row) or "-"]
