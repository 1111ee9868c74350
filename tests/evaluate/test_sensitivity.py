from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from core.errors import DataError, NotPrunableError, StopRequested
from core.evaluate.perplexity import perplexity
from core.evaluate.sensitivity import scan
from core.evaluate.sensitivity_points import curve_of, lowest
from core.results.noise import perplexity_difference
from core.results.perplexity import Perplexity
from core.surgery.masks import masked
from tests.handmade import graph_of, ids, tiny


@pytest.fixture(params=["llama", "qwen3"])
def case(request: pytest.FixtureRequest) -> tuple[Any, Any, dict[str, Any], torch.Tensor]:
    """A 3-layer model, its graph, random scores, 10 windows of 12 tokens."""
    model = tiny(request.param, num_hidden_layers=3)
    graph = graph_of(model)
    rng = np.random.default_rng(0)
    scores = {group.id: rng.random(group.units, dtype=np.float32) for group in graph.groups}
    return model, graph, scores, ids(model, batch=10)


def arguments(**changes: Any) -> dict[str, Any]:
    return {"ratios": (0.5,), "criterion": "random", "text": "made up", **changes}


def naive(model: Any, graph: Any, scores: Any, windows: torch.Tensor) -> dict[tuple[int, str], Perplexity]:
    by_place = {}
    for kind, unit_kind in (("attention", "query_head"), ("ffn", "ffn_channel")):
        for group in graph.of_kind(unit_kind):
            with masked(model, graph, {group.id: lowest(scores[group.id], 0.5)}):
                by_place[group.layer, kind] = perplexity(model, windows)
    return by_place


def test_it_equals_evaluating_the_whole_model_for_every_point(case: Any) -> None:
    model, graph, scores, windows = case
    wanted, dense = naive(model, graph, scores, windows), perplexity(model, windows)
    scanned = scan(model, graph, scores, windows, **arguments())
    assert {(p["layer"], p["kind"]) for p in scanned.points} == set(wanted) and len(wanted) == 6
    for point in scanned.points:
        whole = wanted[point["layer"], point["kind"]]
        assert point["ppl"] == pytest.approx(whole.ppl, rel=1e-5)
        assert point["ppl_stderr"] == pytest.approx(whole.stderr, rel=1e-3)
        noise = perplexity_difference(dense, whole).noise
        assert point["change_stderr"] == pytest.approx(noise, rel=1e-2) and noise > 0
    assert scanned.baseline_ppl == pytest.approx(dense.ppl, rel=1e-6)
    assert scanned.baseline_stderr == pytest.approx(dense.stderr, rel=1e-6) and scanned.windows == 10
    assert len({round(point["ppl"], 3) for point in scanned.points}) > 4, "the points tell nothing"
    assert (scanned.window, scanned.tokens, scanned.criterion, scanned.text) == (12, 120, "random", "made up")


def test_layers_below_are_not_run_again(case: Any) -> None:
    model, graph, scores, windows = case
    runs = [0, 0, 0]
    hooks = []
    for layer, name in enumerate(graph.layer_modules):

        def count(*_: Any, layer: int = layer) -> None:
            runs[layer] += 1

        attention = model.get_submodule(name).self_attn
        hooks.append(attention.register_forward_hook(count))
    scan(model, graph, scores, windows[:8], **arguments())
    # One dense pass; two points for each layer up to this one; the last layer once more, for the check.
    assert runs == [1 + 2, 1 + 4, 1 + 6 + 1]


def test_the_model_is_left_as_it_was(case: Any) -> None:
    model, graph, scores, windows = case
    before = model(windows).logits
    scan(model, graph, scores, windows, **arguments())

    def stop(done: int, total: int) -> None:
        raise StopRequested("enough")

    with pytest.raises(StopRequested):
        scan(model, graph, scores, windows, **arguments(on_progress=stop))
    assert torch.equal(model(windows).logits, before)
    assert not any("forward" in module.__dict__ or module._forward_hooks for module in model.modules())


def test_layers_that_share_more_than_the_stream_are_evaluated_whole(case: Any) -> None:
    """The last layer adds what the first one's FFN saw: skipping the first would change the result."""
    model, graph, scores, windows = case
    first, last = model.model.layers[0].mlp, model.model.layers[2].mlp
    seen: list[torch.Tensor] = []
    first.register_forward_hook(lambda module, args, out: seen.append(out))
    last.register_forward_hook(lambda module, args, out: out + seen.pop())
    scanned = scan(model, graph, scores, windows, **arguments())
    wanted = naive(model, graph, scores, windows)
    for point in scanned.points:
        assert point["ppl"] == pytest.approx(wanted[point["layer"], point["kind"]].ppl, rel=1e-5)


def test_layers_kinds_and_progress(case: Any) -> None:
    model, graph, scores, windows = case
    told: list[tuple[int, int]] = []
    asked = arguments(
        kinds=("ffn",), layers=[1, 2], on_progress=lambda done, total: told.append((done, total))
    )
    scanned = scan(model, graph, scores, windows, **asked)
    assert [(p["layer"], p["kind"], p["ratio"]) for p in scanned.points] == [(1, "ffn", 0.5), (2, "ffn", 0.5)]
    assert told == [(1, 2), (2, 2)]


def test_the_lowest_units_go_at_least_one_and_never_all() -> None:
    scores = np.array([0.3, 0.1, 0.2, 0.1], dtype=np.float32)
    assert lowest(scores, 0.5) == (1, 3)
    assert lowest(scores, 0.01) == (1,)
    assert lowest(scores, 1.0) == (1, 2, 3)


def test_nothing_to_do_is_refused(case: Any) -> None:
    model, graph, scores, windows = case
    with pytest.raises(NotPrunableError, match="score the model first"):
        scan(model, graph, {}, windows, **arguments())
    with pytest.raises(NotPrunableError):
        scan(model, graph, scores, windows, **arguments(layers=[7]))
    with pytest.raises(DataError):
        scan(model, graph, scores, windows[:, :1], **arguments())


def test_a_tuple_from_a_layer_is_given_back_as_one(case: Any) -> None:
    model, graph, scores, windows = case
    wanted = scan(model, graph, scores, windows, **arguments()).points
    for layer in model.model.layers:
        inner = layer.forward
        layer.forward = lambda *args, inner=inner, **kwargs: (inner(*args, **kwargs), None)
    stream = model.model.layers[1:]
    for layer in stream:
        layer.register_forward_pre_hook(lambda module, args: (args[0][0], *args[1:]))
    model.model.norm.register_forward_pre_hook(lambda module, args: (args[0][0],))
    got = scan(model, graph, scores, windows, **arguments()).points
    assert [p["ppl"] for p in got] == pytest.approx([p["ppl"] for p in wanted], rel=1e-6)


def test_both_at_several_ratios_equal_evaluating_the_whole_model(case: Any) -> None:
    model, graph, scores, windows = case
    scanned = scan(model, graph, scores, windows, **arguments(kinds=("both",), ratios=(0.25, 0.75))).points
    assert [(p["layer"], p["target"]) for p in scanned] == [(n, r) for n in range(3) for r in (0.25, 0.75)]
    for point in scanned:
        groups = [f"L{point['layer']:02d}.{kind}" for kind in ("query_head", "ffn_channel")]
        gone = {group: lowest(scores[group], point["target"]) for group in groups}
        with masked(model, graph, gone):
            assert point["ppl"] == pytest.approx(perplexity(model, windows).ppl, rel=1e-5)
        assert point["ratio"] == pytest.approx(point["target"]) and "unit" not in point


def test_every_head_alone(case: Any) -> None:
    model, graph, scores, windows = case
    scanned = scan(model, graph, scores, windows, **arguments(kinds=("head",))).points
    assert [(p["layer"], p["unit"]) for p in scanned] == [(n, head) for n in range(3) for head in range(4)]
    for point in scanned[::5]:
        with masked(model, graph, {f"L{point['layer']:02d}.query_head": (point["unit"],)}):
            assert point["ppl"] == pytest.approx(perplexity(model, windows).ppl, rel=1e-5)
        assert point["ratio"] == 0.25 and curve_of(point) == f"sensitivity.head.{point['unit']}"
