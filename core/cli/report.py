"""`report`: write runs into one HTML file. torch is not loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.cli import options
from core.cli.ask import RUNS
from core.cli.terminal import emit
from core.runs import watch

Runs = Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs: ids, their beginnings, or folders.")]


def report(
    runs: Runs,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="File to write. Default: report.html in the first run's folder."
        ),
    ] = None,
    runs_dir: options.RunsDir = RUNS,
    as_json: options.Json = False,
) -> None:
    """Write runs into one HTML file that needs nothing else. It shows plan, curves, scores, answers."""
    from core.report.page import write_report

    run_dirs = [Path(run) if Path(run).is_dir() else watch.find(runs_dir, run) for run in runs]
    file = write_report(run_dirs, out or run_dirs[0] / "report.html")
    result = {"report": str(file), "runs": [run_dir.name for run_dir in run_dirs]}
    emit(result, as_json, [str(file)])
