"""What the commands have in common: options to a spec, a run in the foreground, a run or model by name."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.cli.terminal import ProgressBar, emit, stdout_kept_clean
from core.errors import SpecError, UnknownNameError
from core.results.noise import error_of
from core.results.words import with_error
from core.runs import launch, watch
from core.runs.records import record
from core.spec.run import RunSpec
from core.stages.early import check_early

RUNS = Path("runs")
#: What is asked for where only the config is read.
GROUPS_ALONE = {"explore.analyses": ("groups",)}


def read_spec_file(path: Path | None) -> RunSpec:
    """A saved `spec.json`, without the facts that its run added; the defaults if there is no file."""
    if path is None:
        return RunSpec()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--spec {path} cannot be read: {error}; give the spec.json of a run.") from error
    return replace(RunSpec.from_json(text), extra={})


def foreground(runs_dir: Path, spec: RunSpec) -> Path:
    """Run a spec in this process, with a progress bar on stderr; Ctrl-C stops it. Returns the directory."""
    check_early(spec)  # before torch is loaded, which takes seconds
    from core.stages.worker import run

    with _watched() as bar:
        return run(spec, runs_dir, on_begin=lambda run_dir: bar.say(f"{run_dir}"), on_event=bar)


def resume_here(run_dir: Path) -> None:
    """Go on with a run in this process, as `foreground` does with a new one."""
    from core.stages.worker import execute

    launch.resume(run_dir, mine=True)
    with _watched() as bar:
        execute(run_dir, bar)


@contextmanager
def _watched() -> Iterator[ProgressBar]:
    with stdout_kept_clean():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        yield ProgressBar()


def detached(runs_dir: Path, spec: RunSpec, as_json: bool) -> None:
    """Leave a spec to a worker and print the run's id and state, and what memory it will hold."""
    check_early(spec)
    from core.memory.here import foreseen
    from core.stages.check import check

    with stdout_kept_clean():
        checked = check(spec)
        held = foreseen(checked)
        run_dir = launch.start(runs_dir, checked)
    lines = [f"state   {record(run_dir)['state']}"]
    lines += [f"memory  {held.words}", *filter(None, [held.advice])] if held else []
    told = {"run_memory_predicted_gib": held.gib} if held else {}
    emit_run(run_dir, {"id": run_dir.name, **told}, as_json, lines)


def source_of(runs_dir: Path, name: str) -> str:
    """A model as it is, or the directory of the run with this id."""
    if name == "demo" or Path(name).exists():
        return name
    try:
        return str(watch.find(runs_dir, name))
    except UnknownNameError:
        return name


def seconds(run_dir: Path) -> float:
    """How long a run was at work."""
    status = record(run_dir)
    return float(status["ended"] - status["started"])


def with_errors(result: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """A result for people to read: numbers with what stands after ±, where `metrics.json` has it."""
    shown = dict(result)
    for key, value in result.items():
        error = error_of(metrics, key)
        if error is not None:
            shown[key] = with_error(value, error, ",.2f")
    return shown


def emit_run(run_dir: Path, result: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    """Print a result with the directory of its run."""
    emit({"run_dir": str(run_dir), **result}, as_json, [*lines, f"run     {run_dir}"])
