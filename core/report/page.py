"""One HTML file for any number of runs: no script, no request, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.errors import ArtifactError, InputError
from core.files import write_text
from core.report.charts import Table, render
from core.report.run import Run
from core.report.sections import section
from core.results.words import number, with_error


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
    """All runs in one table, each row led by its run."""
    rows = []
    for run in runs:
        metrics = run.metrics
        ppl = [
            with_error(metrics.get(f"ppl_{when}"), metrics.get(f"ppl_stderr_{when}"), ",.2f")
            for when in ("before", "pruned", "after")
        ]
        if "ppl_pruned" not in metrics:
            ppl[1] = ppl[2]
        params = number(metrics.get("params_after", metrics.get("params")), ",d")
        rows.append([run, run.spec.model.source, number(metrics.get("sparsity_total"), ".1%"), params, *ppl])
    return Table(
        ["run", "model", "removed of all", "parameters", "ppl dense", "ppl pruned", "ppl final"], rows
    )
