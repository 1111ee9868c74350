"""One layer out of two, the baseline of LLM-Pruner's Table 8."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.criteria.scoring import score
from core.errors import SpecError
from core.graph.discover import discover
from core.plan.allocation import allocate
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from core.stages.early import check_method
from tests.handmade import tiny


def test_every_second_layer_goes_but_for_one_unit_a_group() -> None:
    model = tiny(num_hidden_layers=4)
    graph = discover(model, name="tiny")
    scores = score(model, graph, ["alternate_layers"], None, seed=0)["alternate_layers"]
    some = allocate(graph, scores, sparsity=0.3, scope="raw").removed
    assert some and all(name.startswith(("L01", "L03")) for name in some), "the others keep all they have"
    half = allocate(graph, scores, sparsity=0.49, scope="raw").removed
    units = {group.id: group.units for group in graph.groups}
    odd = [
        name for name in units if name.startswith(("L01", "L03")) and name.endswith(("query_head", "channel"))
    ]
    assert odd and all(len(half[name]) == units[name] - 1 for name in odd)


def test_it_ranks_layers_and_is_refused_where_units_of_a_layer_are_ranked() -> None:
    spec = RunSpec(prune=PruneSpec("alternate_layers", 0.5, scope="raw"))
    check_method(spec)
    with pytest.raises(SpecError, match="alternate_layers needs scope raw, got local; write --scope raw"):
        check_method(replace(spec, prune=PruneSpec("alternate_layers", 0.5, scope="local")))
    sweep = SweepSpec(methods=("alternate_layers",), scopes=("global",))
    with pytest.raises(SpecError, match="needs scope raw, got global"):
        check_method(RunSpec(goal="sweep", sweep=sweep))
