"""The three states every analysis tab goes through: nothing yet, being made, there; and what failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from core.errors import PruneError
from core.runs.watch import log_tail
from core.spec.explore import Analysis
from core.spec.run import RunSpec
from pruneviz import scripts
from pruneviz.actions import launch as actions
from pruneviz.context import AppContext, memory
from pruneviz.data import runs
from pruneviz.data.runs import RunRecord
from pruneviz.figures import states
from pruneviz.tabs.parts import QUIET, message

POLL_S = 1.5
#: What a tab shows: an analysis of an exploring run, or a sweep.
Made = Analysis | Literal["sweep"]


@dataclass(frozen=True)
class Standing:
    """Where an analysis of a model stands.

    Attributes:
        run_dir: the newest run that holds the artifact, or None.
        live: a run that is making it now; failed: the newest attempt, if it failed and nothing came of it.
    """

    run_dir: Path | None
    live: RunRecord | None
    failed: RunRecord | None


def standing(runs_dir: Path, model: str, artifact: str, analysis: Made) -> Standing:
    """Look through the runs of this model."""
    key = runs.source_key(model)
    mine = [record for record in runs.list_runs(runs_dir) if runs.source_key(record.model) == key]
    tries = [record for record in mine if _makes(record, analysis)]
    # A pruning run keeps what it needed itself, e.g. the scores of one criterion: less than is asked here.
    made = next((record.path for record in [*tries, *mine] if record.has(artifact)), None)
    live = next((record for record in tries if record.live), None)
    last = tries[0] if tries else None
    failed = last if last and made is None and last.state in ("failed", "crashed", "damaged") else None
    return Standing(made, live, failed)


def _makes(record: RunRecord, analysis: Made) -> bool:
    goal = "sweep" if analysis == "sweep" else "explore"
    if record.spec is None or record.spec.goal != goal:
        return False
    if analysis == "sweep":
        return True
    return analysis == "groups" or analysis in record.spec.explore.analyses


#: (model, run_dir, *inputs) -> component -> update; components that are not named stay as they are.
Load = Callable[..., dict[Any, Any]]
#: (model, *inputs) -> what the button launches; may raise PruneError.
Ask = Callable[..., RunSpec]


@dataclass
class AnalysisFrame:
    """State, launch button and clock of one tab, and the column that shows once the artifact is there.

    Args:
        name: the tab's id; elements are `<name>-state`, `<name>-launch`, `<name>-content`.
        analysis, artifact: what the tab shows; analyses: what its button launches.
        title, text, button: the empty state and its next action.
        again: whether the button stays once the artifact is there.
        growing: whether the artifact is rewritten while its run is on, and shown as it grows.
    """

    app: AppContext
    name: str
    analysis: Made
    artifact: str
    analyses: tuple[Analysis, ...]
    title: str
    text: str
    button: str
    again: bool = False
    growing: bool = False
    content: gr.Column = field(init=False)

    def __post_init__(self) -> None:
        self.state = gr.HTML(elem_id=f"{self.name}-state", min_height=110)
        self.launch = gr.Button(
            self.button, variant="primary", elem_id=f"{self.name}-launch", visible=False, scale=0
        )
        self.timer = gr.Timer(POLL_S, active=False)
        self.shown = memory(f"{self.name}-shown")
        self.content = gr.Column(visible=False, elem_id=f"{self.name}-content")

    def wire(
        self,
        load: Load,
        outputs: list[Any],
        inputs: list[Any] | None = None,
        partial: Load | None = None,
        ask: tuple[Ask, list[Any]] | None = None,
    ) -> None:
        """Connect everything.

        Args:
            load: (model, run_dir, *inputs) -> the updates of `outputs`; may raise PruneError.
            outputs: components inside `content`; inputs: more components to read than the model.
            partial: (model, live run, *inputs) -> the same while the run is on; empty for nothing yet.
            ask: what the button launches, and the components it reads besides the model; the standard
                run of `analyses` if None.
        """

        def show(model: str, *values: Any) -> dict[Any, Any]:
            return self._show(load, partial, model, *values)

        make, wanted = ask or (lambda model: actions.explore_spec(self.app, model, self.analyses), [])

        def start(model: str, *values: Any) -> dict[Any, Any]:
            try:
                actions.launch(self.app, make(model, *values[: len(wanted)]))
            except PruneError as error:
                return self._frame(states.failure_html(error), launch=True, ticking=False)
            return show(model, *values[len(wanted) :])

        def tick(shown: str | None, model: str, *values: Any) -> dict[Any, Any]:
            stand = standing(self.app.runs_dir, model, self.artifact, self.analysis)
            same = self._mark(stand) == (shown or "")
            if stand.live and same and (stand.run_dir or partial is None):  # only the progress has changed
                return {self.state: states.progress_html(stand.live)}
            return show(model, *values)

        frame = [self.state, self.launch, self.timer, self.content, self.shown, *outputs]
        read = [self.app.url.model, *(inputs or [])]
        self.app.tabs[self.name].select(show, read, frame, **QUIET)
        self.app.url.model.change(show, read, frame, **QUIET)
        self.launch.click(start, [self.app.url.model, *wanted, *(inputs or [])], frame, **QUIET)
        self.timer.tick(tick, [self.shown, *read], frame, **QUIET)
        pause = scripts.pause_unless(self.name)
        self.app.url.tab.change(None, self.app.url.tab, self.timer, js=pause, api_visibility="private")

    def _show(self, load: Load, partial: Load | None, model: str, *values: Any) -> dict[Any, Any]:
        stand = standing(self.app.runs_dir, model, self.artifact, self.analysis)
        words, updates = "", {}
        try:
            if stand.run_dir:
                updates = load(model, stand.run_dir, *values)
            elif stand.live and partial:
                updates = partial(model, stand.live, *values)
            elif stand.failed:
                words = states.ended_html(stand.failed, log_tail(stand.failed.path))
        except PruneError as error:
            words = states.failure_html(error)
        if stand.live:
            words = states.progress_html(stand.live)
        ready = bool(updates)
        if not words and not ready:
            words = states.empty_html(self.title, self.text)
        offered = (self.again or not ready) and not stand.live
        return {
            **self._frame(words, launch=offered, ticking=stand.live is not None),
            self.content: gr.Column(visible=ready),
            self.shown: self._mark(stand) if ready else "",
            **updates,
        }

    def _mark(self, stand: Standing) -> str:
        """Which state of the artifact the page shows: the run, and when it was written if it grows."""
        if stand.run_dir is None:
            return ""
        written = (stand.run_dir / self.artifact).stat().st_mtime_ns if self.growing else ""
        return f"{stand.run_dir.name} {written}".strip()

    def _frame(self, words: str, launch: bool, ticking: bool) -> dict[Any, Any]:
        return {
            self.state: message(words),
            self.launch: gr.Button(visible=launch),
            self.timer: gr.Timer(active=ticking),
        }
