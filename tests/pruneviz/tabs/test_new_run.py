"""The preview of New run: what the run needs, and what its button says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.memory.forecast import Place, forecast
from core.memory.shapes import shapes_of
from core.spec.explore import ExploreSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from pruneviz.actions.forms import FIELDS, form_from
from pruneviz.context import AppContext
from pruneviz.tabs import new_run
from tests.pruneviz.samples import graph, make_run


@pytest.fixture
def app(tmp_path: Path) -> AppContext:
    """A dashboard that knows the groups of the demo model."""
    make_run(tmp_path, "a", RunSpec(goal="explore", explore=ExploreSpec(("groups",))), with_graph=True)
    return AppContext(tmp_path)


def preview(app: AppContext, spec: RunSpec) -> tuple[str, str]:
    """What the page says of a form that asks for this, and what Launch is called."""
    form = form_from(spec)
    shown, _, button, _ = new_run._preview(app, "demo", tuple(form[path] for path in FIELDS))
    return str(shown), button.value


@pytest.mark.parametrize(("free", "called"), [(2**20, "Launch anyway"), (2**40, "Launch"), (None, "Launch")])
def test_who_launches_what_will_not_fit_does_it_knowingly(
    app: AppContext, monkeypatch: pytest.MonkeyPatch, free: int | None, called: str
) -> None:
    told = forecast(RunSpec(), shapes_of(graph()), Place("cpu", free))
    monkeypatch.setattr("pruneviz.data.room.foreseen", lambda spec, graph: told)
    shown, label = preview(app, RunSpec())
    assert label == called and ("That will not fit" in shown) == (called != "Launch")


def test_the_time_of_an_effort_is_told_and_no_other(app: AppContext) -> None:
    assert "Takes about" in preview(app, RunSpec())[0]
    tasked = replace(RunSpec(), evaluate=replace(RunSpec().evaluate, tasks=("bundled_capitals",)))
    assert "and its benchmarks on top" in preview(app, tasked)[0]
    for other in (PruneSpec("l2"), PruneSpec(rounds=2), PruneSpec(drop="layer=1")):
        assert "Takes about" not in preview(app, RunSpec(prune=other))[0]
    assert "Takes about" in preview(app, RunSpec().settled())[0], "a clone of it, too"
    make_run(app.runs_dir, "b", RunSpec().settled(), metrics={"seconds": 42.0})
    assert "Takes about 42 s (as 1 such run of this model took)." in preview(app, RunSpec())[0]
