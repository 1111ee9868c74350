"""The commands about runs. None of them loads torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from core.cli import options
from core.cli.ask import RUNS, resume_here
from core.cli.terminal import emit, keys_and_values, table
from core.errors import InputError
from core.results.words import size
from core.runs import launch, watch
from core.runs.company import company
from core.runs.delete import delete as remove_run
from core.runs.delete import readers, size_of
from core.runs.records import full_record, record

Id = Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning.")]
Yes = Annotated[bool, typer.Option("--yes", help="Remove it, without being asked.")]
app = typer.Typer(
    help="List, show, stop, resume and delete runs.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_(runs_dir: options.RunsDir = RUNS, as_json: options.Json = False) -> None:
    """List all runs, newest first."""
    records = [record(path) for path in watch.list_runs(runs_dir)]
    rows = [["id", "state", "stage", "model", "progress", "where"]]
    rows += [
        [
            *(run["id"], run["state"], run["stage"], str(run["model"] or "-"), f"{run['progress']:.0%}"),
            run["node"] or run["gpu"] or "-",
        ]
        for run in records
    ]
    warnings = [f"{run['id']}: {run['warning']}" for run in records if run["warning"]]
    emit(
        {"runs": records}, as_json, [*table(rows), *warnings] if records else [f"No runs in {runs_dir} yet."]
    )


@app.command()
def show(run: Id, runs_dir: options.RunsDir = RUNS, as_json: options.Json = False) -> None:
    """Show one run: status, spec, command, metrics, end of its log."""
    shown = full_record(watch.find(runs_dir, run))
    emit(shown, as_json, [*_status(shown), "", str(shown["log"])])


@app.command()
def stop(run: Id, runs_dir: options.RunsDir = RUNS, as_json: options.Json = False) -> None:
    """Ask a run to stop after its step. What is finished is kept."""
    run_dir = watch.find(runs_dir, run)
    launch.stop(run_dir)
    launch.start_next(runs_dir)
    _emit_status(run_dir, as_json)


@app.command()
def resume(run: Id, runs_dir: options.RunsDir = RUNS, as_json: options.Json = False) -> None:
    """Go on with a run that ended early. Finished stages are not repeated."""
    run_dir = watch.find(runs_dir, run)
    if company():  # the processes that were started for it are these
        resume_here(run_dir)
    else:
        launch.resume(run_dir)
    _emit_status(run_dir, as_json)


@app.command()
def delete(
    run: Id, yes: Yes = False, runs_dir: options.RunsDir = RUNS, as_json: options.Json = False
) -> None:
    """Remove a run that has ended, with all its files. It cannot be had back."""
    run_dir = watch.find(runs_dir, run)
    others = readers(run_dir)
    used = f" {', '.join(others)} worked on what it left." if others else ""
    if not yes:
        raise InputError(
            f"{run_dir.name} has {size(size_of(run_dir))}.{used} To remove it for good, say so with --yes."
        )
    freed = remove_run(run_dir)
    said = f"{run_dir.name} is gone: {size(freed)} freed.{used}"
    emit({"deleted": run_dir.name, "bytes": freed, "used_by": others}, as_json, [said])


def _emit_status(run_dir: Path, as_json: bool) -> None:
    status = record(run_dir)
    emit(status, as_json, _status(status))


def _status(run: dict[str, Any]) -> list[str]:
    keys = (
        "id",
        "state",
        "stage",
        "message",
        "node",
        "gpu",
        "goal",
        "model",
        "method",
        "sparsity",
        "warning",
        "command",
    )
    shown = {key: run[key] for key in keys if run.get(key)}
    for key in ("created", "started", "ended"):
        if run.get(key):
            shown[key] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run[key]))
    error = run.get("error")
    return [*keys_and_values(shown), *([f"{error['message']} {error['fix']}"] if error else [])]
