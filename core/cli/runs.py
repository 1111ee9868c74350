"""The commands about runs. None of them loads torch."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from core.cli import options
from core.cli.ask import RUNS
from core.cli.terminal import emit, keys_and_values, table
from core.runs import launch
from core.runs.records import full_record, record

Id = Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning.")]
app = typer.Typer(help="List, show, stop and resume runs.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(runs_dir: options.RunsDir = RUNS, as_json: options.Json = False) -> None:
    """List all runs, newest first."""
    found = [record(path) for path in launch.list_runs(runs_dir)]
    rows = [["id", "state", "stage", "model", "progress"]]
    rows += [[one["id"], one["state"], one["stage"], _model(one), f"{one['progress']:.0%}"] for one in found]
    emit({"runs": found}, as_json, table(rows) if found else [f"No runs in {runs_dir} yet."])


@app.command()
def show(run: Id, runs_dir: options.RunsDir = RUNS, as_json: options.Json = False) -> None:
    """Show one run: status, spec, command, metrics and the last lines of its log."""
    found = full_record(launch.find(runs_dir, run))
    emit(found, as_json, [*_status(found), "", str(found["log"])])


@app.command()
def stop(run: Id, runs_dir: options.RunsDir = RUNS, as_json: options.Json = False) -> None:
    """Ask a run to stop after the step it is in; what is finished is kept."""
    run_dir = launch.find(runs_dir, run)
    launch.stop(run_dir)
    launch.start_next(runs_dir)
    found = record(run_dir)
    emit(found, as_json, _status(found))


@app.command()
def resume(run: Id, runs_dir: options.RunsDir = RUNS, as_json: options.Json = False) -> None:
    """Go on with a run that was stopped, failed or crashed; finished stages are not repeated."""
    run_dir = launch.find(runs_dir, run)
    launch.resume(run_dir)
    found = record(run_dir)
    emit(found, as_json, _status(found))


def _model(found: dict[str, Any]) -> str:
    return str(found["model"] or "-")


def _status(found: dict[str, Any]) -> list[str]:
    keys = ("id", "state", "stage", "message", "goal", "model", "method", "sparsity", "warning", "command")
    shown = {key: found[key] for key in keys if found.get(key)}
    for key in ("created", "started", "ended"):
        if found.get(key):
            shown[key] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found[key]))
    error = found.get("error") or {}
    said = [f"{error['message']} {error['fix']}"] if error else []
    return [*keys_and_values(shown), *said]
