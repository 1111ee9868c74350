"""Allocation: on target in every scope, in order of score, and never the last unit of a group."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.allocation import allocate
from core.errors import NotPrunableError, SpecError
from core.graph.records import Attention, Graph, Group, Member, Parameter, Role, to_runs
from core.plan import cost, params_in
from tests.handmade import graph_of, tiny

RNG = np.random.default_rng


def model_graph(
    layers: int = 6, heads: int = 9, kv_heads: int = 3, dim: int = 4, hidden: int = 36, ffn: int = 96
):  # type: ignore[no-untyped-def]
    """Attention and FFN groups of a grouped-query model, made of records only."""
    parameters: dict[str, Parameter] = {}
    groups: list[Group] = []

    def member(name: str, axis: int, role: Role, units: int, width: int, layer: int) -> Member:
        size = units * width
        parameters[name] = Parameter((size, hidden) if axis == 0 else (hidden, size), 1.0, "Linear", layer)
        return Member(name, axis, role, width, to_runs(np.arange(size, dtype=np.int64)))

    for at in range(layers):
        head = (
            member(f"{at}.q", 0, "layer1", heads, dim, at),
            member(f"{at}.o", 1, "layer2", heads, dim, at),
        )
        kv = tuple(member(f"{at}.{n}", 0, "layer1", kv_heads, dim, at) for n in "kv")
        kv += tuple(replace(m, width=dim * heads // kv_heads) for m in head)
        mlp = (member(f"{at}.up", 0, "layer1", ffn, 1, at), member(f"{at}.down", 1, "layer2", ffn, 1, at))
        parents = tuple(u // (heads // kv_heads) for u in range(heads))
        groups += [
            Group(f"L{at:02d}.kv_group", "kv_group", at, kv_heads, kv),
            Group(
                f"L{at:02d}.query_head", "query_head", at, heads, head,
                parent=f"L{at:02d}.kv_group", parent_unit=parents,
            ),
            Group(f"L{at:02d}.ffn_channel", "ffn_channel", at, ffn, mlp),
        ]  # fmt: skip
    attentions = tuple(Attention(at, str(at), heads, kv_heads, dim, dim) for at in range(layers))
    names = tuple(str(at) for at in range(layers))
    return Graph("made", "made", True, 0.0, parameters, tuple(groups), attentions, names)


def random_scores(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    rng = RNG(seed)
    return {group.id: rng.random(group.units).astype(np.float32) for group in graph.groups}


@pytest.mark.parametrize("sparsity", [0.0, 0.01, 0.1, 0.2, 0.37, 0.5, 0.8, 0.85])
@pytest.mark.parametrize(
    "kinds", [("query_head", "ffn_channel"), ("kv_group", "ffn_channel"), ("ffn_channel",)]
)
def test_a_plan_lands_within_one_ffn_channel(sparsity: float, kinds: tuple[str, ...]) -> None:
    graph = model_graph()
    for seed in range(3):
        plan = allocate(graph, random_scores(graph, seed), sparsity=sparsity, kinds=kinds)
        assert abs(plan.sparsity - sparsity) * plan.params_in_scope <= 2 * 36
        assert plan.before is not None and plan.after is not None
        gone = plan.before.params - plan.after.params
        assert gone == cost(graph, {}).params - cost(graph, plan.removed).params
        assert plan.params_in_scope == params_in(graph, graph.of_kind(*kinds))


@pytest.mark.parametrize("sparsity", [0.1, 0.2, 0.5, 0.7])
def test_heads_alone_land_within_one_head_and_its_key_value_slices(sparsity: float) -> None:
    graph = model_graph()
    plan = allocate(graph, random_scores(graph), sparsity=sparsity, kinds=("query_head",))
    assert abs(plan.sparsity - sparsity) * plan.params_in_scope <= 4 * 4 * 36


def test_zero_removes_nothing() -> None:
    plan = allocate(model_graph(), None, sparsity=0.0)
    assert plan.removed == {} and plan.sparsity == 0.0


def test_the_lowest_scores_go_first_and_ties_by_number() -> None:
    graph = model_graph(layers=1)
    scores = {"L00.ffn_channel": np.ones(96, dtype=np.float32)}
    scores["L00.ffn_channel"][[7, 50]] = 0.5
    plan = allocate(graph, scores, sparsity=4 / 96, kinds=("ffn_channel",))
    assert plan.removed == {"L00.ffn_channel": (0, 1, 7, 50)}


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


def test_permuting_scores_permutes_the_plan() -> None:
    graph, rng = model_graph(), RNG(1)
    scores = random_scores(graph)
    order = rng.permutation(96)
    shuffled = {**scores, "L02.ffn_channel": scores["L02.ffn_channel"][order]}
    plain, moved = (allocate(graph, s, sparsity=0.3, kinds=("ffn_channel",)) for s in (scores, shuffled))
    assert sorted(order[list(moved.removed["L02.ffn_channel"])]) == list(plain.removed["L02.ffn_channel"])


def test_layers_restrict_the_scope_and_the_fraction_is_of_that_scope() -> None:
    graph = model_graph()
    plan = allocate(graph, random_scores(graph), sparsity=0.4, layers="1:3")
    assert {group.split(".")[0] for group in plan.removed} == {"L01", "L02"}
    assert plan.params_in_scope == params_in(graph, [g for g in graph.groups if g.layer in (1, 2)])
    assert abs(plan.sparsity - 0.4) < 0.01


def test_a_preview_needs_no_scores() -> None:
    graph = model_graph()
    plan = allocate(graph, None, sparsity=0.2)
    assert plan.after is not None and abs(plan.sparsity - 0.2) * plan.params_in_scope <= 72
    assert plan == allocate(graph, None, sparsity=0.2)


def test_an_impossible_target_says_what_is_reachable() -> None:
    with pytest.raises(NotPrunableError, match=r"At most 0\.8333.*0\.9500 was asked for"):
        allocate(model_graph(), None, sparsity=0.95, kinds=("query_head",))
    nearly = allocate(model_graph(), None, sparsity=0.83, kinds=("query_head",))
    assert {len(units) for units in nearly.removed.values()} == {8}


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


@pytest.mark.parametrize("scope", ["global", "standardised"])
@pytest.mark.parametrize("sparsity", [0.0, 0.03, 0.2, 0.5, 0.8])
def test_every_scope_lands_within_one_channel_and_leaves_a_unit(scope: str, sparsity: float) -> None:
    graph = model_graph()
    for seed in range(3):
        plan = allocate(graph, random_scores(graph, seed), sparsity=sparsity, scope=scope)
        assert abs(plan.sparsity - sparsity) * plan.params_in_scope <= 2 * 36
        assert all(len(units) < graph.group(group).units for group, units in plan.removed.items())


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


@pytest.mark.parametrize("scope", ["local", "global", "standardised"])
@pytest.mark.parametrize("multiple", [8, 32])
def test_widths_that_change_are_multiples_and_heads_are_left_as_heads(scope: str, multiple: int) -> None:
    graph = model_graph()
    plan = allocate(graph, random_scores(graph), sparsity=0.3, scope=scope, multiple=multiple)
    widths = [96 - len(plan.removed.get(group.id, ())) for group in graph.of_kind("ffn_channel")]
    assert all(width % multiple == 0 and width > 0 for width in widths) and min(widths) < 96
    heads = [9 - len(plan.removed.get(group.id, ())) for group in graph.of_kind("query_head")]
    assert any(number % multiple for number in heads)
    assert abs(plan.sparsity - 0.3) * plan.params_in_scope <= multiple * 2 * 36
    assert f"multiples of {multiple}" in plan.notes[-1]


def test_a_group_that_loses_nothing_keeps_a_width_that_is_no_multiple() -> None:
    graph = model_graph(layers=2, ffn=20)
    scores = {"L00.ffn_channel": np.zeros(20), "L01.ffn_channel": np.ones(20)}
    plan = allocate(graph, scores, sparsity=0.1, scope="global", kinds=("ffn_channel",), multiple=8)
    assert {name: len(units) for name, units in plan.removed.items()} == {"L00.ffn_channel": 4}
    with pytest.raises(SpecError, match=r"multiple .* got 7 for L00\.ffn_channel with 4 units"):
        allocate(model_graph(ffn=4), None, sparsity=0.1, multiple=7)


def test_each_kind_meets_its_own_target() -> None:
    graph = model_graph()
    targets = {"ffn_channel": 0.3, "query_head": 0.1}
    plan = allocate(graph, random_scores(graph), sparsity=0.9, kind_sparsity=targets)
    totals = {kind: params_in(graph, graph.of_kind(kind)) for kind in targets}
    for kind, target in targets.items():
        units = {g: u for g, u in plan.removed.items() if kind in g}
        gone = cost(graph, {}).params - cost(graph, units).params
        assert abs(gone - target * totals[kind]) <= (72 if kind == "ffn_channel" else 4 * 4 * 36)
    assert plan.target == pytest.approx(sum(targets[k] * totals[k] for k in targets) / sum(totals.values()))
    rest = allocate(graph, random_scores(graph), sparsity=0.2, kind_sparsity={"query_head": 0.0})
    assert all("ffn" in group for group in rest.removed)


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


def test_the_target_counts_biases_that_are_added() -> None:
    graph = model_graph()
    named = {name: f"{name}.weight" for name in graph.parameters}
    members = {g.id: tuple(replace(m, parameter=named[m.parameter]) for m in g.members) for g in graph.groups}
    graph = replace(
        graph,
        parameters={named[name]: value for name, value in graph.parameters.items()},
        groups=tuple(replace(g, members=members[g.id]) for g in graph.groups),
    )
    plan = allocate(graph, random_scores(graph), sparsity=0.3, biased=True)
    assert plan.biases == tuple(f"{at}.{name}.bias" for at in range(6) for name in ("o", "down"))
    assert plan.after is not None
    assert plan.after.params == cost(graph, plan.removed).params + 12 * 36
    assert abs(plan.sparsity - 0.3) * plan.params_in_scope <= 2 * 36
    assert allocate(graph, None, sparsity=0.0, biased=True).biases == ()


def test_torch_is_not_needed() -> None:
    import subprocess
    import sys

    code = "import sys, core.allocation, core.heads; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


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
