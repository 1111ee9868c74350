"""A pruned model written in a format for others: one stage, which can be stopped and resumed."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from core.files import write_json
from core.results.exported import EXPORTED, Exported, read_exported
from core.ship import delivery
from core.ship.hub import push
from core.stages.work import State, add_facts, kept, versions


def check(state: State) -> None:
    """Find out whether the format holds the model, unless it is written already."""
    add_facts(state.work, versions=versions())
    if kept(read_exported, state.work.run_dir) is None:
        delivery.check(state.work.spec)


def write(state: State) -> None:
    """Write the files, unless they are there."""
    work, say = state.work, state.work.recorder.message
    exported = kept(read_exported, work.run_dir)
    if exported is None or not Path(exported.folder).is_dir():
        out = Path(work.spec.export.out or work.run_dir / work.spec.export.to)
        exported = delivery.deliver(
            work.spec, out, say, work.recorder.progress, lambda what: _keep(work.run_dir, what)
        )
    asked = work.spec.export
    if asked.push_to and not exported.pushed:
        pushed = push(Path(exported.folder), asked.push_to, exported.files, dry=asked.dry_run, say=say)
        exported = replace(exported, pushed=pushed)
        _keep(work.run_dir, exported)
    work.recorder.message(f"{len(exported.files)} files, {exported.bytes:,} bytes in {exported.folder}")
    work.recorder.artifact(EXPORTED)


def _keep(run_dir: Path, exported: Exported) -> None:
    write_json(run_dir / EXPORTED, asdict(exported))
