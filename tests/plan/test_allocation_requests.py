"""What may be asked of allocation: ranges of layers, and refusals that say what can be had."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from core.errors import NotPrunableError, SpecError
from core.plan.allocation import allocate
from core.plan.cost import params_in
from core.spec.prune import PruneSpec
from tests.plan.made import model_graph, random_scores


def test_a_spec_gives_allocation_what_it_takes_and_nothing_else() -> None:
    of_the_run = {"graph", "scores", "curves", "timings", "worth", "method", "model"}
    assert set(PruneSpec().allocation()) == set(inspect.signature(allocate).parameters) - of_the_run


def test_layers_restrict_the_scope_and_the_fraction_is_of_that_scope() -> None:
    graph = model_graph()
    plan = allocate(graph, random_scores(graph), sparsity=0.4, layers="1:3")
    assert {group.split(".")[0] for group in plan.removed} == {"L01", "L02"}
    assert plan.params_in_scope == params_in(graph, [g for g in graph.groups if g.layer in (1, 2)])
    assert abs(plan.sparsity - 0.4) < 0.01


def test_presets_name_the_ranges_of_the_papers() -> None:
    graph = model_graph(layers=32)
    for preset, first in (("4-30", 4), ("5-30", 5)):
        plan = allocate(graph, None, sparsity=0.2, layers=preset)
        assert {graph.group(group).layer for group in plan.removed} == set(range(first, 30))
    assert (
        allocate(graph, None, sparsity=0.2, layers="all").removed
        == allocate(graph, None, sparsity=0.2).removed
    )
    with pytest.raises(SpecError, match="goes past the model"):
        allocate(model_graph(), None, sparsity=0.2, layers="4-30")


def test_an_impossible_target_says_what_is_reachable() -> None:
    with pytest.raises(NotPrunableError, match=r"At most 0\.8333.*0\.9500 was asked for"):
        allocate(model_graph(), None, sparsity=0.95, kinds=("query_head",))
    nearly = allocate(model_graph(), None, sparsity=0.83, kinds=("query_head",))
    assert {len(units) for units in nearly.removed.values()} == {8}


def test_no_group_loses_more_than_its_largest_share() -> None:
    graph = model_graph()
    scores = {
        group: values * (0.1 if group[:3] == "L00" else 1) for group, values in random_scores(graph).items()
    }

    def shares(largest: float) -> list[float]:
        plan = allocate(graph, scores, sparsity=0.3, scope="global", max_share=largest)
        assert abs(plan.sparsity - 0.3) < 0.02
        return [len(units) / graph.group(group).units for group, units in plan.removed.items()]

    assert max(shares(1.0)) > 0.9 and max(shares(0.5)) <= 0.5
    with pytest.raises(NotPrunableError, match=r"and what max_share and align leave; 0\.3000 was asked for"):
        shares(0.2)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sparsity": 20}, SpecError, r"write 0\.2 for 20 %"),
        ({"sparsity": 1.0}, SpecError, r"\[0, 1\)"),
        ({"scope": "standardized"}, SpecError, "Did you mean 'standardised'"),
        ({"kind_sparsity": {"ffn_channel": 1.2}}, SpecError, r"kind_sparsity of ffn_channel.*got 1\.2"),
        ({"kind_sparsity": {"kv_group": 0.2}}, SpecError, "kind_sparsity names kv_group"),
        ({"multiple": 128}, SpecError, r"got 128 for L00\.ffn_channel with 96 units"),
        ({"layers": "4:9"}, SpecError, "layers 0 to 5"),
        ({"kinds": ("query_head", "kv_group")}, SpecError, "either query_head or kv_group"),
        ({"kinds": ("residual_channel",)}, NotPrunableError, "has no residual_channel"),
    ],
)
def test_bad_requests_are_explained(changes: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        allocate(model_graph(), None, **{"sparsity": 0.2, **changes})


def test_missing_and_broken_scores_are_refused() -> None:
    graph = model_graph()
    with pytest.raises(NotPrunableError, match="no scores for L00"):
        allocate(graph, {}, sparsity=0.2)
    broken = random_scores(graph)
    broken["L03.ffn_channel"][4] = np.nan
    with pytest.raises(NotPrunableError, match="95 are finite"):
        allocate(graph, broken, sparsity=0.2)
