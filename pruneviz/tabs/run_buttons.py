"""The buttons under a run: which of them make sense, and the one that asks before it deletes.

Element ids: run-stop, run-resume, run-clone, run-again, run-compare, run-widths, run-delete, run-end; what
is asked: run-deleting, run-deleting-about, run-delete-go, run-delete-keep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from core.errors import PruneError
from core.results.widths import WIDTHS
from core.results.words import size
from core.runs.delete import delete, readers, size_of
from core.runs.status import ENDED
from core.runs.watch import DAMAGED, worker_alive
from pruneviz.components.base import panel
from pruneviz.context import AppContext, memory
from pruneviz.data import runs
from pruneviz.data.contenders import left_a_model
from pruneviz.data.runs import RunRecord
from pruneviz.figures import states
from pruneviz.tabs.parts import QUIET, Parts, message

YOURS = "Make it yours"
#: What shows a run, and of which model, on the tab.
Show = Callable[..., dict[Any, Any]]


@dataclass(frozen=True)
class RunButtons(Parts):
    """What acts on the chosen run."""

    stop: gr.Button
    resume: gr.Button
    clone: gr.Button
    again: gr.Button
    compare: gr.Button
    widths: gr.Button
    delete: gr.Button
    end: gr.Button


@dataclass(frozen=True)
class Deleting:
    """What is asked before a run is deleted; `run` is the one it was asked of, whatever is chosen since."""

    box: gr.Column
    about: gr.HTML
    run: gr.Textbox
    go: gr.Button
    keep: gr.Button


def build_run_buttons() -> RunButtons:
    """Build the row where the page stands."""

    def button(label: str, name: str) -> gr.Button:
        return gr.Button(label, elem_id=f"run-{name}", scale=0, interactive=False)

    with gr.Row(elem_id="run-buttons"):
        names = {
            "stop": "Stop",
            "resume": "Resume",
            "clone": "Clone",
            "again": "Prune again",
            "compare": "Open in Compare",
            "widths": "Open in Widths",
            "delete": "Delete",
        }
        row = {name: button(label, name) for name, label in names.items()}
        # Last, so that none of the others moves under the pointer when it comes.
        end = gr.Button("End now", variant="stop", elem_id="run-end", scale=0, visible=False)
    return RunButtons(**row, end=end)


def build_deleting() -> Deleting:
    """Build what is asked where the page stands; nothing is seen of it until then."""
    run = memory("run-deleting-run")
    with gr.Column(visible=False, elem_id="run-deleting") as box:
        about = panel("run-deleting-about")
        with gr.Row():
            go = gr.Button("Delete for good", variant="stop", elem_id="run-delete-go", scale=0)
            keep = gr.Button("Keep it", elem_id="run-delete-keep", scale=0)
    return Deleting(box, about, run, go, keep)


def run_buttons(record: RunRecord | None) -> dict[str, gr.Button]:
    """Which buttons make sense."""
    state = record.state if record else ""
    spec = record.spec if record else None
    pruned = spec is not None and spec.goal == "prune"
    # One that is suspended counts as crashed after a while, and holds up the queue until it is ended.
    silent = record is not None and state == "crashed" and worker_alive(record.status)
    example = record is not None and record.example
    has_widths = pruned and record is not None and record.has(WIDTHS)
    return {
        "stop": gr.Button(interactive=state in ("queued", "starting", "running")),
        "end": gr.Button(visible=state == "stopping" or silent),
        "resume": gr.Button(interactive=state in ("failed", "stopped", "crashed")),
        "clone": gr.Button(YOURS if example else "Clone", interactive=pruned or example),
        "again": gr.Button(interactive=record is not None and not example and left_a_model(record)),
        "compare": gr.Button(interactive=record is not None and left_a_model(record)),
        "widths": gr.Button(interactive=has_widths),
        "delete": gr.Button(interactive=state in (*ENDED, DAMAGED) and not silent and not example),
    }


def wire_deleting(
    app: AppContext,
    ask: gr.Button,
    deleting: Deleting,
    problem: gr.HTML,
    show: Show,
    shown: list[Any],
) -> None:
    """Ask, then delete.

    Args:
        problem: says what went wrong; show, shown: what the tab shows of a run and a model, and where.
    """
    url, box = app.url, deleting.box

    def question(run: str) -> list[Any]:
        record = runs.find(app.runs_dir, run) if run else next(iter(runs.list_runs(app.runs_dir)), None)
        if record is None:
            return [gr.Column(visible=False), "", ""]
        return [gr.Column(visible=True), question_html(record.path), record.id]

    def gone(run: str, model: str) -> dict[Any, Any]:
        record, said = runs.find(app.runs_dir, run), ""
        try:
            if record is not None:
                delete(record.path)
        except PruneError as error:
            said = states.failure_html(error)
        left = run if said else ""
        return {problem: message(said), url.run: left, **show(left, model)}

    ask.click(question, url.run, [box, deleting.about, deleting.run], **QUIET)
    deleting.go.click(gone, [deleting.run, url.model], [problem, url.run, *shown], **QUIET)
    deleting.keep.click(lambda: gr.Column(visible=False), None, box, **QUIET)


def question_html(run_dir: Path) -> str:
    """What would be gone, and who worked on it."""
    others = readers(run_dir)
    used = f"{', '.join(others)} worked on what it left. " if others else ""
    text = f"Its {size(size_of(run_dir))} cannot be had back. {used}"
    return states.notes_html(f"Delete {run_dir.name} with all its files? {text}".strip())
