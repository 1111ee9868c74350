"""Which units go: in order of score, within each group or over all of them."""

from __future__ import annotations

import numpy as np

from core.plan.allocation import allocate
from core.plan.cost import params_in
from tests.handmade import graph_of, tiny
from tests.plan.made import RNG, model_graph, random_scores


def test_the_lowest_scores_go_first_and_ties_by_number() -> None:
    graph = model_graph(layers=1)
    scores = {"L00.ffn_channel": np.ones(96, dtype=np.float32)}
    scores["L00.ffn_channel"][[7, 50]] = 0.5
    plan = allocate(graph, scores, sparsity=4 / 96, kinds=("ffn_channel",))
    assert plan.removed == {"L00.ffn_channel": (0, 1, 7, 50)}


def test_permuting_scores_permutes_the_plan() -> None:
    graph, rng = model_graph(), RNG(1)
    scores = random_scores(graph)
    order = rng.permutation(96)
    shuffled = {**scores, "L02.ffn_channel": scores["L02.ffn_channel"][order]}
    plain, moved = (allocate(graph, s, sparsity=0.3, kinds=("ffn_channel",)) for s in (scores, shuffled))
    assert sorted(order[list(moved.removed["L02.ffn_channel"])]) == list(plain.removed["L02.ffn_channel"])


def test_every_group_gives_the_same_fraction() -> None:
    graph = model_graph()
    plan = allocate(graph, random_scores(graph), sparsity=0.3)
    for kind in ("query_head", "ffn_channel"):
        counts = [len(plan.removed[group.id]) for group in graph.of_kind(kind)]
        assert max(counts) - min(counts) <= 1
    heads = sum(len(plan.removed[group.id]) for group in graph.of_kind("query_head")) / 54
    ffn = sum(len(plan.removed[group.id]) for group in graph.of_kind("ffn_channel")) / 576
    assert abs(heads - ffn) < 0.05


def test_roundings_do_not_favour_one_end_of_the_model() -> None:
    graph = model_graph(layers=20)
    plan = allocate(graph, random_scores(graph), sparsity=0.05)
    counts = [len(plan.removed.get(group.id, ())) for group in graph.of_kind("query_head")]
    assert sum(counts) > 0 and abs(sum(counts[:10]) - sum(counts[10:])) <= 2


def test_global_scope_ranks_score_per_parameter() -> None:
    """Two layers of four channels; the second's are worth ten times as much: the first gives all it can."""
    graph = model_graph(layers=2, ffn=4)
    scores = {"L00.ffn_channel": np.array([1, 2, 3, 4.0]), "L01.ffn_channel": np.array([10, 20, 30, 40.0])}
    plan = allocate(graph, scores, sparsity=0.5, scope="global", kinds=("ffn_channel",))
    assert plan.removed == {"L00.ffn_channel": (0, 1, 2), "L01.ffn_channel": (0,)}


def test_global_scope_counts_what_a_head_costs() -> None:
    """Raw scores would spare every head, since a head is the sum of so many more parameters."""
    graph = model_graph()
    scores = random_scores(graph)
    channel = params_in(graph, graph.of_kind("ffn_channel")) / 576
    head = params_in(graph, graph.of_kind("query_head")) / 54
    for group in graph.of_kind("query_head"):
        scores[group.id] = scores[group.id] * head / channel
    plan = allocate(graph, scores, sparsity=0.4, scope="global")
    gone = {
        kind: sum(len(plan.removed.get(g.id, ())) for g in graph.of_kind(kind)) / total
        for kind, total in (("query_head", 54), ("ffn_channel", 576))
    }
    assert abs(gone["query_head"] - gone["ffn_channel"]) < 0.15


def test_global_scope_is_blind_to_the_unit_a_kind_is_scored_in() -> None:
    graph = model_graph()
    scores = random_scores(graph)
    louder = {name: s * (1000 if "query" in name else 1) for name, s in scores.items()}
    plain, loud = (allocate(graph, s, sparsity=0.3, scope="global").removed for s in (scores, louder))
    assert plain == loud


def test_standardised_scope_is_blind_to_level_and_spread_of_a_group() -> None:
    graph = model_graph()
    scores = random_scores(graph)
    moved = {name: values * (1 + at) + 10 * at for at, (name, values) in enumerate(scores.items())}
    plans = [allocate(graph, s, sparsity=0.3, scope="standardised").removed for s in (scores, moved)]
    assert plans[0] == plans[1]


def test_standardised_scope_equals_z_scores_in_one_list() -> None:
    graph = model_graph(layers=3, ffn=40)
    scores = {name: values**3 for name, values in random_scores(graph).items()}
    plan = allocate(graph, scores, sparsity=0.25, scope="standardised", kinds=("ffn_channel",))
    z = {
        g.id: (scores[g.id] - scores[g.id].mean()) / scores[g.id].std() for g in graph.of_kind("ffn_channel")
    }
    ranked = sorted((float(v), name, unit) for name, values in z.items() for unit, v in enumerate(values))
    expected = {(name, unit) for _, name, unit in ranked[:30]}
    assert {(name, unit) for name, units in plan.removed.items() for unit in units} == expected


def test_raw_scope_takes_the_lowest_scores_of_all_groups_in_one_list() -> None:
    graph = graph_of(tiny())
    rng = np.random.default_rng(3)
    groups = graph.of_kind("ffn_channel")
    scores = {group.id: rng.normal(size=group.units) * (i + 1) + i for i, group in enumerate(groups)}
    plan = allocate(graph, scores, sparsity=0.25, scope="raw", kinds=("ffn_channel",))
    every = sorted((value, group, unit) for group, row in scores.items() for unit, value in enumerate(row))
    taken = every[: sum(map(len, plan.removed.values()))]
    assert {(group, unit) for _, group, unit in taken} == {
        (g, u) for g, us in plan.removed.items() for u in us
    }


def test_equal_scores_spread_evenly() -> None:
    graph = model_graph()
    same = {group.id: np.ones(group.units) for group in graph.groups}
    for scope in ("global", "standardised"):
        channels = {"sparsity": 0.3, "kinds": ("ffn_channel",)}
        tied, plain = allocate(graph, same, scope=scope, **channels), allocate(graph, None, **channels)
        assert tied.removed == plain.removed
    even = allocate(graph, None, sparsity=0.3)
    for scope in ("global", "standardised"):
        preview = allocate(graph, None, sparsity=0.3, scope=scope)
        assert preview.removed == even.removed and "without scores" in preview.notes[-1]
