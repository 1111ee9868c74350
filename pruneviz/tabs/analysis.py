"""The three states every analysis tab goes through: nothing yet, being made, there; and what failed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from core.errors import ArtifactError, PruneError
from core.runs.watch import log_tail
from core.spec.explore import Analysis
from core.spec.run import RunSpec
from pruneviz import scripts
from pruneviz.actions import launch as actions
from pruneviz.components.base import panel
from pruneviz.context import AppContext, memory
from pruneviz.data import runs
from pruneviz.data.runs import RunRecord
from pruneviz.figures import states
from pruneviz.tabs.example import build_example_bar, example_bar, fresh_spec
from pruneviz.tabs.parts import QUIET, message

POLL_S = 1.5
ENDED_EARLY = ("failed", "crashed", "damaged", "stopped")
#: What a tab shows: an analysis of an exploring run, or a sweep.
Made = Analysis | Literal["sweep"]


@dataclass(frozen=True)
class Standing:
    """Where an analysis of a model stands.

    Attributes:
        run_dir: the newest run that holds the artifact, else the example that does, or None.
        live: a run that is making it now.
        attempt: the newest attempt, if it ended without it and no run left it since.
        example: the example that holds it; own: whether a run of this folder does.
    """

    run_dir: Path | None
    live: RunRecord | None
    attempt: RunRecord | None
    example: RunRecord | None = None
    own: bool = False

    @property
    def shows_example(self) -> bool:
        """Whether `run_dir` is the example."""
        return self.example is not None and self.run_dir == self.example.path

    @property
    def failed(self) -> RunRecord | None:
        """The newest attempt, if it failed and no run left anything."""
        gone = self.attempt is None or self.own or self.attempt.state == "stopped"
        return None if gone else self.attempt


def standing(
    records: Sequence[RunRecord], model: str, artifact: str, analysis: Made, run: str = ""
) -> Standing:
    """Look through the runs of this model, newest first; `run` is that in the address, maybe an example."""
    key = runs.source_key(model)
    mine = [record for record in records if runs.source_key(record.model) == key]
    example = next((r for r in mine if r.example and r.has(artifact)), None)
    mine = [record for record in mine if not record.example]
    tries = [record for record in mine if _makes(record, analysis)]
    # A pruning run keeps what it needed itself, e.g. the scores of one criterion: less than is asked here.
    made = next((record.path for record in [*tries, *mine] if record.has(artifact)), None)
    live = next((record for record in tries if record.live), None)
    since = itertools.takewhile(lambda record: record.path != made, mine)
    attempt = next((r for r in since if _makes(r, analysis)), None)
    attempt = attempt if attempt and attempt.state in ENDED_EARLY else None
    shown = example.path if example and (made is None or run == example.id) else made
    return Standing(shown, live, attempt, example, made is not None)


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
        self.state = panel(f"{self.name}-state", min_height=110)
        self.launch = gr.Button(
            self.button, variant="primary", elem_id=f"{self.name}-launch", visible=False, scale=0
        )
        self.bar = build_example_bar(self.name)
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

        def show(model: str, run: str, *values: Any) -> dict[Any, Any]:
            return self._show(load, partial, model, run, *values)

        make, wanted = ask or (lambda model: actions.explore_spec(self.app, model, self.analyses), [])

        def start(model: str, run: str, *values: Any) -> dict[Any, Any]:
            return launched(lambda: make(model, *values[: len(wanted)]), model, run, *values[len(wanted) :])

        def yours(model: str, run: str, *values: Any) -> dict[Any, Any]:
            return launched(lambda: self._example_spec(model), model, run, *values)

        def launched(spec: Callable[[], RunSpec], model: str, run: str, *values: Any) -> dict[Any, Any]:
            try:
                actions.launch(self.app, spec())
            except PruneError as error:
                return self._frame(states.failure_html(error), launch=True, ticking=False)
            return show(model, run, *values)

        def tick(shown: str | None, model: str, run: str, *values: Any) -> dict[Any, Any]:
            stand = self.standing(model, run)
            same = self._mark(stand) == (shown or "")
            whole = partial is None or (stand.run_dir and not stand.shows_example)
            if stand.live and same and whole:  # only the progress has changed
                return {self.state: states.progress_html(stand.live)}
            return show(model, run, *values)

        frame = [self.state, self.launch, self.timer, self.content, self.shown, *self.bar.all(), *outputs]
        where, more = [self.app.url.model, self.app.url.run], inputs or []
        self.app.tabs[self.name].select(show, [*where, *more], frame, **QUIET)
        self.app.url.model.change(show, [*where, *more], frame, **QUIET)
        self.launch.click(start, [*where, *wanted, *more], frame, **QUIET)
        self.bar.yours.click(yours, [*where, *more], frame, **QUIET)
        other = self.bar.other.click(self._other, where, self.app.url.run, **QUIET)
        other.then(show, [*where, *more], frame, **QUIET)
        self.timer.tick(tick, [self.shown, *where, *more], frame, **QUIET)
        pause = scripts.pause_unless(self.name)
        self.app.url.tab.change(None, self.app.url.tab, self.timer, js=pause, api_visibility="private")

    def standing(self, model: str, run: str | None) -> Standing:
        """Where this tab's analysis of a model stands; `run` is the one in the address."""
        records = self.app.records(model, run or "")
        return standing(records, model, self.artifact, self.analysis, run or "")

    def _other(self, model: str, run: str) -> str:
        """The run for the address that shows the example instead of one's own, or one's own instead."""
        stand = self.standing(model, run)
        return stand.example.id if stand.example and not stand.shows_example else ""

    def _example_spec(self, model: str) -> RunSpec:
        """What the example was asked for, as far as this tab shows it. Raises SpecError."""
        example = self.standing(model, "").example
        if example is None:
            raise ArtifactError("This example is not there any more; use the button of the tab.")
        spec = fresh_spec(self.app, example)
        if spec.goal != "explore":
            return spec
        return replace(spec, explore=replace(spec.explore, analyses=self.analyses))

    def _show(self, load: Load, partial: Load | None, model: str, run: str, *values: Any) -> dict[Any, Any]:
        stand = self.standing(model, run)
        words, updates = "", {}
        try:
            if stand.live and partial and (stand.run_dir is None or stand.shows_example):
                updates = partial(model, stand.live, *values)
            if stand.run_dir and not updates:
                updates = load(model, stand.run_dir, *values)
        except PruneError as error:
            words = states.failure_html(error)
        ready = bool(updates)
        words = self._words(stand, words, ready)
        offered = (self.again or not ready) and not stand.live
        return {
            **self._frame(words, launch=offered, ticking=stand.live is not None),
            self.content: gr.Column(visible=ready),
            self.shown: self._mark(stand) if ready else "",
            **self.bar.filled(example_bar(stand.example, stand.shows_example, stand.own, bool(stand.live))),
            **updates,
        }

    def _words(self, stand: Standing, problem: str, ready: bool) -> str:
        """What stands above the artifact, or in its place; `problem` is why it cannot be shown."""
        if stand.live:
            return states.progress_html(stand.live)
        ended, told = stand.attempt, ""
        if ended:
            told = states.attempt_html(ended, log_tail(ended.path), earlier=stand.own)
        if problem or ready or stand.failed:
            return problem or told
        left_out = states.notes_html(*self.app.examples.notes)
        return states.empty_html(self.title, self.text) + left_out + told

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
