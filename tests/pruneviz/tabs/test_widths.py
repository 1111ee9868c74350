from __future__ import annotations

import json
from typing import Any

import pytest

from core.errors import ArtifactError
from core.plan.allocation import allocate
from core.results.widths import WIDTHS, read_widths, widths
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from pruneviz.context import AppContext
from pruneviz.tabs.widths import fill
from tests.pruneviz.samples import graph, make_run


def shown(folder: Any, chosen: str = "", picked: tuple[str, ...] = ("uniform",)) -> dict[str, Any]:
    return fill(AppContext(folder), chosen, list(picked))


def pruned(folder: Any, name: str, sparsity: float) -> Any:
    run = make_run(folder, name, RunSpec(prune=PruneSpec("taylor_first", sparsity)), with_graph=True)
    plan = allocate(graph(), None, sparsity=sparsity, kinds=PruneSpec().kinds)
    (run / WIDTHS).write_text(json.dumps(widths(graph(), plan)))
    return run


def test_without_widths_the_next_action_is_offered(tmp_path):
    make_run(tmp_path, "explored", RunSpec(goal="explore"))
    view = shown(tmp_path)
    assert "No widths yet" in view["state"].value and view["to_runs"].visible and not view["content"].visible


def test_a_run_is_shown_against_another_and_the_paper(tmp_path):
    pruned(tmp_path, "a", 0.2)
    pruned(tmp_path, "b", 0.5)
    view = shown(tmp_path, "a", ("uniform", "b", "nuteprune_table_17", "gone"))
    assert view["content"].visible and not view["state"].visible
    assert view["run"].value == "a" and view["against"].value == ["uniform", "b", "nuteprune_table_17"]
    for text in ("taylor_first, 20 %", "taylor_first, 50 %", "Table 17"):
        assert text in view["summary"]
    assert ("a" not in [value for _, value in view["against"].choices]) and "Uniform" in view["chart"]


def test_a_run_without_widths_gives_way_to_the_newest_with(tmp_path):
    pruned(tmp_path, "a", 0.2)
    view = shown(tmp_path, "none")
    assert view["run"].value == "a" and "the newest that has" in view["state"].value


@pytest.mark.parametrize("text", ["{}", "no json", '{"layers": [{}], "dense": {}, "hidden": 3}'])
def test_damaged_widths_are_an_error_in_words(tmp_path, text):
    run = pruned(tmp_path, "a", 0.2)
    (run / WIDTHS).write_text(text)
    with pytest.raises(ArtifactError, match="is damaged"):
        read_widths(run)
    view = shown(tmp_path)
    assert "is damaged" in view["state"].value and not view["content"].visible
