"""A budget over kept curves: what the browser is sent, and the run of the widths that it sends back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.errors import ArtifactError, SpecError
from core.plan.cost import cost
from core.results.scores import write_scores
from core.results.sensitivity import Sensitivity, write_sensitivity
from core.spec.run import RunSpec
from pruneviz.data import runs
from pruneviz.data.deciding import kept_curves, spec_of, to_browser
from tests.pruneviz.samples import graph, make_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Runs with a scan at two shares, chosen by l2, and scores of l2."""
    run = make_run(tmp_path, "explored", RunSpec(goal="explore"), with_graph=True)
    points = [
        {"layer": layer, "kind": kind, "ratio": ratio, "ppl": 20 + 8 * ratio * (1 + layer)}
        for layer in (0, 1)
        for kind in ("attention", "ffn")
        for ratio in (0.25, 0.5)
    ]
    write_sensitivity(run, Sensitivity(20.0, "a text", 8, 64, "l2", points))
    rng = np.random.default_rng(0)
    write_scores(run, {"l2": {g.id: rng.random(g.units, np.float32) for g in graph().groups}})
    return tmp_path


def test_what_the_browser_adds_up_is_what_is_counted(folder: Path) -> None:
    kept = kept_curves(runs.list_runs(folder), "demo")
    assert kept and kept.criterion == "l2" and len(kept.curves) == 4
    sent = to_browser(kept)
    counts = {each["id"]: each["units"] // 2 for each in sent["groups"]}
    spec = spec_of(kept, RunSpec(), counts)
    left = cost(kept.graph, spec.prune.units).params
    gone = sum(
        each["saved"][n] if each["part"] == "attention" else n * each["saved"][1]
        for each in sent["groups"]
        for n in [counts[each["id"]]]
    )
    assert sent["params"] - gone == left
    order = np.argsort(kept.scores["L00.ffn_channel"], kind="stable")
    n = counts["L00.ffn_channel"]
    assert set(spec.prune.units["L00.ffn_channel"]) == set(order[:n].tolist()), "those worth least"
    assert spec.prune.method == "manual" and spec.prune.reconstruct == "bias"


def test_widths_that_no_group_has_are_refused(folder: Path) -> None:
    kept = kept_curves(runs.list_runs(folder), "demo")
    assert kept
    for counts in (
        {"L00.ffn_channel": 10**6},
        {"nothing": 1},
        {"L00.ffn_channel": 1.5},
        {"L00.query_head": -1},
    ):
        with pytest.raises(SpecError, match="move the slider"):
            spec_of(kept, RunSpec(), counts)
    with pytest.raises(SpecError, match="Nothing goes"):
        spec_of(kept, RunSpec(), {"L00.ffn_channel": 0})


def test_without_curves_or_scores_there_is_nothing_to_drag(folder: Path, tmp_path: Path) -> None:
    assert kept_curves([], "demo") is None
    (tmp_path / "explored" / "scores.safetensors").unlink()
    with pytest.raises(ArtifactError, match="analyse the model"):
        kept_curves(runs.list_runs(folder), "demo")
