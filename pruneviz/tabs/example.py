"""The bar above what an example shows: that it is one, how it was made, and the way to one's own.

Element ids: <tab>-example, <tab>-yours, <tab>-other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from core.errors import ArtifactError, PruneError
from core.models.rows import SUFFIXES, suffix_of
from core.results import words
from core.runs.command_line import command_line
from core.spec.fields import changed, field_of
from core.spec.run import RunSpec
from pruneviz import scripts
from pruneviz.actions import launch as launcher
from pruneviz.components.base import panel
from pruneviz.context import AppContext
from pruneviz.data.runs import RunRecord
from pruneviz.figures import states
from pruneviz.figures.render import render
from pruneviz.tabs.parts import QUIET, Parts, message

#: Where a spec says what is read.
_TEXTS = ("calibration.name", "evaluate.text")


@dataclass(frozen=True)
class ExampleBar(Parts):
    """Its row, its words, the button that makes a run like it, and the one that shows what else there is."""

    box: gr.Row
    said: gr.HTML
    yours: gr.Button
    other: gr.Button


def build_example_bar(tab: str) -> ExampleBar:
    """Build it, hidden."""
    with gr.Row(visible=False, elem_classes="pv-example-bar") as box:
        said = panel(f"{tab}-example")
        yours = gr.Button("Make it yours", elem_id=f"{tab}-yours", size="sm", scale=0, min_width=120)
        other = gr.Button("Show the example", elem_id=f"{tab}-other", size="sm", scale=0, min_width=140)
    return ExampleBar(box, said, yours, other)


def example_bar(example: RunRecord | None, shown: bool, own: bool, live: bool) -> dict[str, Any]:
    """What the bar shows.

    Args:
        example: the example there is, if any; shown: whether the tab shows it.
        own: whether there is something of this folder to show instead; live: whether that is being made.
    """
    return {
        "box": gr.Row(visible=example is not None and (shown or own)),
        "said": example_html([example] if example and shown else []),
        "yours": gr.Button(visible=shown and not own, interactive=not live),
        "other": gr.Button("Back to yours" if shown else "Show the example", visible=own),
    }


def wire_yours(
    app: AppContext,
    bar: ExampleBar,
    shown: Callable[..., list[RunRecord]],
    inputs: list[Any],
    problem: gr.HTML,
) -> None:
    """On "Make it yours" launch what the shown examples were asked for, and open the Runs tab on the first.

    Args:
        shown: the values of `inputs` -> the examples; problem: says why one cannot be launched.
    """

    def launch(*values: Any) -> dict[Any, Any]:
        try:
            made = [launcher.launch(app, fresh_spec(app, record)) for record in shown(*values)]
        except PruneError as error:
            return {problem: message(states.failure_html(error))}
        return {app.url.run: made[0].name} if made else {}

    went = bar.yours.click(launch, inputs, [problem, app.url.run], **QUIET)
    to_runs = scripts.open_tab("runs", unless="problem")
    went.success(None, problem, None, js=to_runs, api_visibility="private")


def fresh_spec(app: AppContext, example: RunRecord) -> RunSpec:
    """What an example was asked for, on the device of this dashboard and on texts that are here.

    Raises:
        SpecError: that cannot be. ArtifactError: the example does not say.
    """
    if example.spec is None:
        raise ArtifactError(f"What {example.id} was asked for cannot be read.")
    usual = app.usual(example.model)
    spec = replace(example.spec, extra={}, model=usual.model, cluster=usual.cluster)
    return changed(spec, {path: field_of(usual, path) for path in _missing(spec)})


def _missing(spec: RunSpec) -> dict[str, str]:
    """The files of text that a spec names and this machine has not got: dotted path -> name."""
    named = {path: str(field_of(spec, path)) for path in _TEXTS}
    return {
        p: name for p, name in named.items() if suffix_of(Path(name)) in SUFFIXES and not Path(name).is_file()
    }


def example_html(examples: list[RunRecord]) -> Markup:
    """That this is an example, the commands that made it, and how long they took; empty without any."""
    made = [(command_line(each.spec), worked(each)) for each in examples if each.spec]
    missing = {name for each in examples if each.spec for name in _missing(each.spec).values()}
    return render("example.html", made=made, missing=" and ".join(sorted(missing)))


def worked(record: RunRecord) -> str:
    """How long it took where it was made."""
    return words.duration(record.status.worked_s(record.status.ended or 0.0))
