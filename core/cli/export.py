"""`export`: write a pruned model in a format for others. torch is loaded when it runs."""

from __future__ import annotations

from dataclasses import asdict

from core.cli import options
from core.cli.ask import RUNS, detached, emit_run, foreground, source_of
from core.cli.terminal import keys_and_values
from core.results.exported import read_exported
from core.runs.request import FIELDS, Given, ask


@options.takes("export")
def export(
    run: options.PrunedRun,
    given: Given = FIELDS,
    detach: options.Detach = False,
    runs_dir: options.RunsDir = RUNS,
    as_json: options.Json = False,
) -> None:
    """Write the result of a pruning run in a format for others."""
    spec = ask("export", source_of(runs_dir, run), given)
    if detach:
        return detached(runs_dir, spec, as_json)
    run_dir = foreground(runs_dir, spec)
    exported = read_exported(run_dir)
    shown = {"format": exported.format, "folder": exported.folder, "bytes": exported.bytes}
    lines = [*keys_and_values(shown), *exported.notes, "", *exported.use, ""]
    return emit_run(run_dir, {**asdict(exported), "bytes": exported.bytes}, as_json, lines)
