"""Refitting without training: the algebra, what is saved and read again, and what cannot be refitted."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from core.allocation import allocate
from core.errors import NotPrunableError
from core.export import load, save
from core.graph.records import Graph
from core.layerwise import layers_of, watching
from core.least_squares import Normal, fit
from core.masks import masked
from core.plan import PruningPlan, cost
from core.reconstruct import reconstruct, reconstructed
from core.refitting import recounted
from core.rescoring import Rescoring
from core.surgery import operate
from tests.graph.families import build as built
from tests.graph.families import graph_of
from tests.handmade import ids, logits

FAMILIES = (
    "llama", "gpt2", "gpt_neox", "bloom", "opt", "phi3", "falcon", "gemma2", "mixtral", "qwen2_moe",
)  # fmt: skip
DOWN = "model.layers.{}.mlp.down_proj"


def build(family: str) -> tuple[PreTrainedModel, Graph]:
    """A fresh tiny model and its groups."""
    return built(family), graph_of(family)


def planned(graph: Graph, seed: int = 0, **changes: Any) -> PruningPlan:
    rng = np.random.default_rng(seed)
    scores = {group.id: rng.random(group.units) for group in graph.groups}
    return allocate(graph, scores, **{"sparsity": 0.3, "biased": True, **changes})


@pytest.fixture(scope="module")
def llama() -> tuple[PreTrainedModel, Graph]:
    return build("llama")


def windows(model: PreTrainedModel, count: int = 16, length: int = 24) -> torch.Tensor:
    return ids(model, batch=count, length=length, seed=3)


def inputs_of(model: PreTrainedModel, name: str, tokens: torch.Tensor) -> torch.Tensor:
    """What a module reads, (tokens, features)."""
    with watching([model.get_submodule(name)]) as seen:
        logits(model, tokens)
    return seen[0][1].flatten(0, -2)


# least squares, by hand and against the definition


def test_a_hand_computed_line() -> None:
    """Inputs 1 2 3, targets 3 5 7: without a bias 34/14, with one exactly 2 x + 1."""
    seen = Normal.empty(1, 1, torch.device("cpu"))
    seen.add(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[3.0], [5.0], [7.0]]))
    start = torch.zeros(1, 1)
    plain = fit(seen, None, start, biased=False, ridges=(0.0,))
    assert plain.weight.item() == pytest.approx(34 / 14) and plain.bias is None
    line = fit(seen, None, start, biased=True, ridges=(0.0,))
    assert line.bias is not None
    assert (line.weight.item(), line.bias.item()) == pytest.approx((2, 1))
    assert line.after == pytest.approx(0, abs=1e-9) and line.before == pytest.approx(8)


def test_a_fit_equals_ridge_regression_written_out() -> None:
    torch.manual_seed(0)
    a, t, start = torch.randn(60, 5).double() + 2, torch.randn(60, 3).double(), torch.randn(5, 3).double()
    seen = Normal.empty(5, 3, torch.device("cpu"))
    for part in range(0, 60, 20):
        seen.add(a[part : part + 20], t[part : part + 20])
    found = fit(seen, None, start, biased=True, ridges=(0.1,))
    centred, goal = a - a.mean(0), t - t.mean(0) - (a - a.mean(0)) @ start
    size = 0.1 * centred.square().sum(0).mean()
    expected = start + torch.linalg.solve(centred.T @ centred + size * torch.eye(5), centred.T @ goal)
    assert torch.allclose(found.weight, expected, atol=1e-4)
    assert found.bias is not None
    error = (a @ found.weight + found.bias - t).square().sum()
    assert found.after == pytest.approx(float(error), rel=1e-4) and found.after < found.before


def test_a_singular_covariance_is_said_and_solved() -> None:
    a = torch.randn(40, 1).repeat(1, 2)  # the same input twice
    seen = Normal.empty(2, 1, torch.device("cpu"))
    seen.add(a, a[:, :1] * 3)
    found = fit(seen, None, torch.zeros(2, 1), biased=False, ridges=(0.0,))
    assert "singular" in found.note and torch.isfinite(found.weight).all()
    assert found.weight.flatten().tolist() == pytest.approx([1.5, 1.5], abs=1e-2)
    nothing = Normal.empty(2, 1, torch.device("cpu"))
    nothing.add(torch.zeros(5, 2), torch.ones(5, 1))
    assert torch.equal(fit(nothing, None, torch.ones(2, 1), biased=False).weight, torch.ones(2, 1).double())


def test_windows_held_out_choose_the_ridge_and_may_refuse_every_change() -> None:
    torch.manual_seed(0)
    noise, other = (Normal.empty(30, 1, torch.device("cpu")) for _ in range(2))
    noise.add(torch.randn(31, 30), torch.randn(31, 1))  # as many tokens as unknowns: learns nothing but noise
    other.add(torch.randn(300, 30), torch.zeros(300, 1))
    refused = fit(noise, other, torch.zeros(30, 1), biased=False, ridges=(1e-4, 1e-2))
    assert refused.ridge == 0 and torch.equal(refused.weight, torch.zeros(30, 1).double())
    assert "held-out" in refused.note


# whole models


def test_bias_compensation_is_the_mean_of_what_goes_through_its_weights(llama: Any) -> None:
    model, graph = copy.deepcopy(llama[0]), llama[1]
    plan, tokens = planned(graph, kinds=("ffn_channel",)), windows(model)
    tokens[:, 0] = model.config.bos_token_id
    counted = torch.ones_like(tokens, dtype=torch.bool)
    counted[:, 0] = False
    expected = {}
    for layer in range(2):
        name, lost = DOWN.format(layer), list(plan.removed[f"L0{layer}.ffn_channel"])
        mean = inputs_of(model, name, tokens)[counted.flatten()].mean(dim=0)
        expected[name] = model.get_submodule(name).weight[:, lost] @ mean[lost]
    reconstruct(model, graph, plan, tokens, how="bias")
    for name, bias in expected.items():
        assert torch.allclose(model.get_submodule(name).bias, bias, atol=1e-5)


def test_least_squares_equals_numpy_on_the_pruned_inputs(llama: Any) -> None:
    """One layer pruned, so that target and inputs can be written out: what the dense layer added."""
    model, graph = copy.deepcopy(llama[0]), llama[1]
    plan, tokens = planned(graph, kinds=("ffn_channel",), layers="0:1"), windows(model, count=3)
    stay = sorted(set(range(40)) - set(plan.removed["L00.ffn_channel"]))
    a = inputs_of(model, DOWN.format(0), tokens).double().numpy()
    target = a @ model.get_submodule(DOWN.format(0)).weight.detach().double().numpy().T
    start = model.get_submodule(DOWN.format(0)).weight.detach().double().numpy().T[stay]
    centred, goal = a[:, stay] - a[:, stay].mean(0), target - target.mean(0)
    gram = centred.T @ centred
    ridge = 1e-2 * gram.diagonal().mean() * np.eye(len(stay))
    expected = start + np.linalg.solve(gram + ridge, centred.T @ (goal - centred @ start))
    found = reconstruct(model, graph, plan, tokens, how="least_squares")
    assert found.fits[0]["module"] == DOWN.format(0)
    weight = model.get_submodule(DOWN.format(0)).weight.detach().double().numpy().T
    assert np.allclose(weight[stay], expected, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "bloom", "opt", "phi3"])
def test_least_squares_beats_the_plain_cut_layer_by_layer_on_its_inputs(family: str) -> None:
    model, graph = build(family)
    plan, tokens = planned(graph), windows(model)
    with watching([model.get_submodule(name) for name in graph.layer_modules]) as seen:
        dense = logits(model, tokens)
    expected = [out[0] if isinstance(out, tuple) else out for _, _, out in seen]
    errors = {}
    for how in ("none", "bias", "least_squares", "pre_pruning"):
        small = copy.deepcopy(model)
        if how != "none":
            found = reconstruct(small, graph, plan, tokens, how=how)
            assert how == "pre_pruning" or found.notes == []
            assert all(one["error_after"] <= one["error_before"] for one in found.fits)
            assert how != "least_squares" or len(found.fits) == 4
        with (
            masked(small, graph, plan.removed),
            watching([small.get_submodule(name) for name in graph.layer_modules]) as seen,
        ):
            last = logits(small, tokens)
        outs = [out[0] if isinstance(out, tuple) else out for _, _, out in seen]
        errors[how] = [float((a - b).norm()) for a, b in zip(outs, expected, strict=True)]
        errors[how].append(float((last - dense).norm()))
    for how in ("least_squares", "pre_pruning"):
        assert all(a < b for a, b in zip(errors[how], errors["none"], strict=True)), errors


@pytest.mark.parametrize("how", ["bias", "least_squares", "pre_pruning"])
@pytest.mark.parametrize("family", FAMILIES)
def test_masked_equals_sliced_equals_reloaded_after_refitting(family: str, how: str, tmp_path: Path) -> None:
    model, graph = build(family)
    kinds = ("query_head", "ffn_channel", *(("residual_channel",) if family == "llama" else ()))
    plan, tokens = planned(graph, kinds=kinds, method="l2"), ids(model)
    done = reconstruct(model, graph, plan, windows(model, count=5), how=how)
    plan = recounted(graph, plan, done.removed)
    with masked(model, graph, plan.removed):
        expected = logits(model, tokens)
    small = operate(model, graph, plan.removed, plan.biases)
    assert (logits(small, tokens) - expected).abs().max() < 1e-4
    assert plan.after is not None
    assert sum(p.numel() for p in small.parameters()) == plan.after.params
    save(small, None, graph, plan, tmp_path / "model", facts={})
    again, _, read = load(tmp_path / "model")
    assert read == plan and (logits(again, tokens) - expected).abs().max() < 1e-4


# pre-pruning: reconstructed, scored again, pruned


def test_level_1_undoes_what_the_layers_before_do_to_its_input(llama: Any) -> None:
    """By hand: after layer 0 lost channels, layer 1's queries are ridge regressions on the pruned input."""
    model, graph = copy.deepcopy(llama[0]), llama[1]
    plan, tokens = planned(graph, kinds=("ffn_channel",), layers="0:1", method="l2"), windows(model, count=3)
    query, dense = "model.layers.1.self_attn.q_proj", model.model.layers[1].self_attn.q_proj.weight.clone()
    goal = inputs_of(model, query, tokens).double().numpy()
    found = reconstruct(model, graph, plan, tokens, how="pre_pruning")
    fitted = model.get_submodule(query).weight.detach().double().numpy()
    with masked(model, graph, found.removed):
        x = inputs_of(model, query, tokens).double().numpy()
    gram, size = x.T @ x, x.shape[1]
    ridge = 1e-2 * gram.diagonal().mean() * np.eye(size)
    carried = np.eye(size) + np.linalg.solve(gram + ridge, x.T @ goal - gram)
    assert np.allclose(fitted.T, carried @ dense.detach().double().numpy().T, atol=1e-4)
    assert {"model.layers.1.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight"} <= found.changed


def test_units_are_chosen_anew_on_the_pruned_models_inputs(llama: Any) -> None:
    """Layer by layer the lowest scores on what the module reads then; as many as planned, the target met."""
    model, graph = copy.deepcopy(llama[0]), llama[1]
    plan, tokens = planned(graph, kinds=("ffn_channel",), method="wanda"), windows(model, count=4)
    found = reconstruct(model, graph, plan, tokens, how="pre_pruning")
    assert {group: len(units) for group, units in found.removed.items()} == {
        group: len(units) for group, units in plan.removed.items()
    }
    read = inputs_of(model := copy.deepcopy(llama[0]), DOWN.format(0), tokens)  # layer 0 sees the dense input
    scores = (model.get_submodule(DOWN.format(0)).weight.abs() * read.norm(dim=0)).sum(dim=0)
    lowest = scores.argsort()[: len(plan.removed["L00.ffn_channel"])]
    assert found.removed["L00.ffn_channel"] == tuple(sorted(lowest.tolist()))
    assert found.removed != plan.removed, "the plan was random"


def test_channels_make_up_for_keys_and_values_that_went_with_other_heads(llama: Any) -> None:
    graph = llama[1]
    again = Rescoring("l2")
    group = graph.group("L00.ffn_channel")
    size = cost(graph, {}).params - cost(graph, {group.id: (0,)}).params
    again.short = 2.2 * size
    chosen = again.choose(llama[0], graph, group, (0, 1, 2), None)
    assert len(chosen) == 5 and again.short == pytest.approx(0.2 * size)


def test_gradient_criteria_keep_the_plans_units_and_say_so(llama: Any) -> None:
    model, graph = copy.deepcopy(llama[0]), llama[1]
    plan = planned(graph, method="taylor_first")
    found = reconstruct(model, graph, plan, windows(model, count=4), how="pre_pruning")
    assert found.removed == plan.removed and "taylor_first cannot score" in found.notes[0]


def test_stacks_of_experts_are_left_as_they_are_and_said() -> None:
    model, graph = build("mixtral")
    plan = planned(graph)
    found = reconstruct(model, graph, plan, windows(model, count=4), how="least_squares")
    assert any("experts" in note and "cannot be refitted" in note for note in found.notes)
    assert {one["module"].rpartition(".")[2] for one in found.fits} == {"o_proj"}


def test_a_model_is_as_it_was_after_a_trial(llama: Any) -> None:
    model, graph = llama
    before, tokens = copy.deepcopy(model.state_dict()), ids(model)
    dense = logits(model, tokens)
    with reconstructed(model, graph, planned(graph), windows(model, count=4), how="least_squares"):
        assert not torch.equal(logits(model, tokens), dense)
    assert list(model.state_dict()) == list(before)
    assert torch.equal(logits(model, tokens), dense)


def test_weights_out_of_range_are_discarded_and_biases_stay(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, graph = copy.deepcopy(llama[0]), llama[1]
    monkeypatch.setattr("core.fitting._RANGE", 1e-6)
    found = reconstruct(model, graph, planned(graph), windows(model), how="least_squares")
    assert {one["ridge"] for one in found.fits} == {0.0} and len(found.fits) == 4
    for name, value in llama[0].named_parameters():
        assert torch.equal(value, model.get_parameter(name)), "weights stay, only biases come"
    assert all(model.get_parameter(name).abs().sum() > 0 for name in planned(graph).biases)
    assert len(found.notes) == 4 and all("out of range" in note for note in found.notes)


def test_layers_that_cannot_be_run_alone_are_refused(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, graph = copy.deepcopy(llama[0]), llama[1]
    inner = model.model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        """A second stream: what enters the second layer is not what left the first."""
        hook = model.model.layers[1].register_forward_pre_hook(lambda _, args: (args[0] * 0.5, *args[1:]))
        try:
            return inner(*args, **kwargs)
        finally:
            hook.remove()

    monkeypatch.setattr(model.model, "forward", forward)
    with pytest.raises(NotPrunableError, match="cannot be run one by one"):
        layers_of(model, graph, [windows(model)])


def test_discovered_groups_name_their_readers() -> None:
    """Conv1D and fused matrices: a bias is never added where there is one."""
    graph = build("gpt2")[1]
    assert planned(graph).biases == ()
