"""A run's model is pruned again from the Runs tab, with a preview of what is left of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import ArtifactError
from core.plan.chosen import chosen_plan
from core.plan.composed import what_is_left
from core.runs.artifacts import GROUPS, MODEL, PLAN
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from pruneviz.context import AppContext
from pruneviz.data import runs
from pruneviz.data.contenders import line_up
from pruneviz.figures.preview import preview_info
from pruneviz.tabs import runs as tab
from tests.plan.made import model_graph
from tests.pruneviz.samples import make_run

ASKED = RunSpec(
    prune=PruneSpec("manual", units={"L00.query_head": (0, 3)}), recover=RecoverSpec("lora"), name="mine"
)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run of a model made of records only, with uneven heads in its first layer."""
    path = make_run(
        tmp_path / "runs", "first", ASKED, metrics={"ppl_before": 1.5, "ppl_after": 2.0}, created=1.0
    )
    graph, folder = model_graph(), path / MODEL
    folder.mkdir()
    (folder / GROUPS).write_text(graph.to_json())
    (folder / PLAN).write_text(chosen_plan(graph, {"L00.query_head": (0, 1)}).to_json())
    return path


class Form:
    """What the button fills."""

    def filled(self) -> list[Any]:
        return []

    def filled_from(self, record: Any) -> list[Any]:
        return [record]


def test_the_button_asks_for_the_same_of_what_is_left(run_dir: Path, tmp_path: Path) -> None:
    model, record = tab._again(AppContext(tmp_path / "runs"), Form(), "first")  # type: ignore[arg-type]
    assert model == str(run_dir)
    assert record.spec.recover.method == "none" and not record.spec.name
    assert not record.spec.prune.units, "units are numbered otherwise now"


def test_the_preview_is_of_what_is_left(run_dir: Path) -> None:
    graph = runs.graph_left(str(run_dir))
    plan = runs.read_plan(run_dir / MODEL)
    assert plan is not None and graph == what_is_left(model_graph(), plan, model="first")
    asked = RunSpec(model=ModelSpec(str(run_dir)), prune=PruneSpec("l2", 0.2))
    left, whole = (preview_info(asked, of, None).lines[0].before for of in (graph, model_graph()))
    assert left < whole
    assert runs.graph_left("demo") is None
    (run_dir / MODEL / PLAN).write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        runs.graph_left(str(run_dir))


def test_the_dense_model_has_the_numbers_of_the_run_that_had_it(run_dir: Path, tmp_path: Path) -> None:
    measured = {"ppl_before": 9.0, "ppl_after": 12.0}
    of_first = replace(ASKED, model=ModelSpec(str(run_dir)))
    second = make_run(tmp_path / "runs", "second", of_first, metrics=measured, created=2.0)
    recover = RunSpec(goal="recover", model=ModelSpec(str(second)), recover=RecoverSpec("lora"))
    make_run(tmp_path / "runs", "third", recover, metrics=measured, created=3.0)
    records = runs.list_runs(tmp_path / "runs")
    for chosen, expected in (("third", "first"), ("second", "first"), ("first", "first")):
        dense, _ = line_up(records, ["dense", chosen], "demo").contenders
        assert dense.source == "demo" and dense.record is not None and dense.record.id == expected
