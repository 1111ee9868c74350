"""What the commands have in common: options to a spec, a run in the foreground, a run or model by name."""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.cli.terminal import ProgressBar, emit, stdout_kept_clean
from core.errors import SpecError, UnknownNameError
from core.results.noise import error_of
from core.results.words import with_error
from core.runs import launch
from core.runs.command_line import OPTIONS
from core.runs.records import record
from core.spec.checks import listed, parse_kind_sparsity
from core.spec.fields import changed, field_of
from core.spec.run import Goal, RunSpec

RUNS = Path("runs")
#: Options whose value on the command line is a list written with commas.
_COMMAS = ("--kinds", "--analyses", "--tasks", "--of")


def read_spec_file(path: Path | None) -> RunSpec:
    """A saved `spec.json`, without the facts that its run added; the defaults if there is no file."""
    if path is None:
        return RunSpec()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--spec {path} cannot be read: {error}; give the spec.json of a run.") from error
    return replace(RunSpec.from_json(text), extra={})


def ask(goal: Goal, model: str | None, values: dict[str, Any], base: RunSpec | None = None) -> RunSpec:
    """The spec that the options ask for. Options that were not given leave `base` as it is.

    Args:
        values: option or parameter name -> value, e.g. {"max_new_tokens": 16}.
    """
    base = base or RunSpec()
    changes: dict[str, Any] = {"goal": goal, "model.source": model}
    for option, path in OPTIONS[goal].items():
        value = values.get(option.removeprefix("--").replace("-", "_"))
        if isinstance(value, str) and option in _COMMAS:
            value = tuple(part.strip() for part in value.split(","))
        if option == "--ratio":
            value = listed("ratio", value, float)
        if option == "--set" and value:
            value = {**field_of(base, path), **dict(map(_setting, value))}
        if option == "--kind-sparsity" and value:
            value = parse_kind_sparsity(",".join(value))
        if isinstance(value, list):
            value = tuple(one for one in value if one)
        changes[path] = value
    if changes.get("prune.method") not in (None, base.prune.method):  # another method has other options
        changes["prune.options"] = dict(map(_setting, values.get("set") or ()))
    return changed(base, changes)


def _setting(text: str) -> tuple[str, Any]:
    """A `key=value` with the value as what it looks like: true or false, a number, or a text."""
    key, equals, value = text.partition("=")
    if not key.strip() or not equals:
        raise SpecError(f"--set takes key=value, got {text!r}; `methods` lists what each method takes.")
    for read in ({"true": True, "false": False}.__getitem__, int, float):
        with suppress(KeyError, ValueError):
            return key.strip(), read(value.strip())
    return key.strip(), value.strip()


def foreground(runs_dir: Path, spec: RunSpec) -> Path:
    """Run a spec in this process, with a progress bar on stderr; Ctrl-C stops it. Returns the directory."""
    from core.stages.worker import run

    with stdout_kept_clean():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        bar = ProgressBar()
        return run(spec, runs_dir, on_begin=lambda run_dir: bar.say(f"{run_dir}"), on_event=bar)


def detached(runs_dir: Path, spec: RunSpec) -> Path:
    """Leave a spec to a worker. Returns the run's directory."""
    from core.stages import pipeline

    with stdout_kept_clean():
        pipeline.check(spec)
        return launch.start(runs_dir, spec)


def source_of(runs_dir: Path, name: str) -> str:
    """A model as it is, or the directory of the run with this id."""
    if name == "demo" or Path(name).exists():
        return name
    try:
        return str(launch.find(runs_dir, name))
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
