"""Refitting whole models without training: what is saved and read again, and what cannot be refitted."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from core.errors import NotPrunableError
from core.graph.records import Graph
from core.models.saved import load, save
from core.plan.allocation import allocate
from core.plan.cost import cost
from core.plan.records import PruningPlan
from core.recover.layers import layers_of, watching
from core.recover.reconstruct import reconstruct, reconstructed
from core.recover.rescoring import Rescoring
from core.spec.choices import BIASED
from core.stages.reconstruct import recounted
from core.surgery.masks import masked
from core.surgery.operate import operate
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
    record = reconstruct(model, graph, plan, tokens, how="least_squares")
    assert record.fits[0]["module"] == DOWN.format(0)
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
    for how in ("none", "bias", "least_squares", "pre_pruning_refit"):
        small = copy.deepcopy(model)
        if how != "none":
            record = reconstruct(small, graph, plan, tokens, how=how)
            assert how == "pre_pruning_refit" or record.notes == []
            assert all(fit["error_after"] <= fit["error_before"] for fit in record.fits)
            assert how != "least_squares" or len(record.fits) == 4
        with (
            masked(small, graph, plan.removed),
            watching([small.get_submodule(name) for name in graph.layer_modules]) as seen,
        ):
            last = logits(small, tokens)
        outs = [out[0] if isinstance(out, tuple) else out for _, _, out in seen]
        errors[how] = [float((a - b).norm()) for a, b in zip(outs, expected, strict=True)]
        errors[how].append(float((last - dense).norm()))
    for how in ("least_squares", "pre_pruning_refit"):
        assert all(a < b for a, b in zip(errors[how], errors["none"], strict=True)), errors


@pytest.mark.parametrize("how", ["bias", "least_squares", "pre_pruning", "pre_pruning_refit"])
@pytest.mark.parametrize("family", FAMILIES)
def test_masked_equals_sliced_equals_reloaded_after_refitting(family: str, how: str, tmp_path: Path) -> None:
    model, graph = build(family)
    kinds = ("query_head", "ffn_channel", *(("residual_channel",) if family == "llama" else ()))
    plan, tokens = planned(graph, kinds=kinds, method="l2", biased=how in BIASED), ids(model)
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
    # Weights come back bit by bit. They lie otherwise in memory, and what is refitted without a ridge can be
    # large, so that logits are rounded otherwise: by 2e-5 of the largest one.
    weights = small.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in again.state_dict().items())
    assert read == plan and (logits(again, tokens) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_level_1_undoes_what_the_layers_before_do_to_its_input(llama: Any) -> None:
    """By hand: after layer 0 lost channels, layer 1's queries are ridge regressions on the pruned input."""
    model, graph = copy.deepcopy(llama[0]), llama[1]
    plan, tokens = planned(graph, kinds=("ffn_channel",), layers="0:1", method="l2"), windows(model, count=3)
    query, dense = "model.layers.1.self_attn.q_proj", model.model.layers[1].self_attn.q_proj.weight.clone()
    goal = inputs_of(model, query, tokens).double().numpy()
    record = reconstruct(model, graph, plan, tokens, how="pre_pruning_refit")
    fitted = model.get_submodule(query).weight.detach().double().numpy()
    with masked(model, graph, record.removed):
        x = inputs_of(model, query, tokens).double().numpy()
    gram, size = x.T @ x, x.shape[1]
    ridge = 1e-2 * gram.diagonal().mean() * np.eye(size)
    carried = np.eye(size) + np.linalg.solve(gram + ridge, x.T @ goal - gram)
    assert np.allclose(fitted.T, carried @ dense.detach().double().numpy().T, atol=1e-4)
    assert {"model.layers.1.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight"} <= record.changed


def test_units_are_chosen_anew_on_the_pruned_models_inputs(llama: Any) -> None:
    """Layer by layer the lowest scores on what the module reads then; as many as planned, the target met."""
    model, graph = copy.deepcopy(llama[0]), llama[1]
    plan, tokens = planned(graph, kinds=("ffn_channel",), method="wanda"), windows(model, count=4)
    record = reconstruct(model, graph, plan, tokens, how="pre_pruning_refit")
    assert {group: len(units) for group, units in record.removed.items()} == {
        group: len(units) for group, units in plan.removed.items()
    }
    read = inputs_of(model := copy.deepcopy(llama[0]), DOWN.format(0), tokens)  # layer 0 sees the dense input
    scores = (model.get_submodule(DOWN.format(0)).weight.abs() * read.norm(dim=0)).sum(dim=0)
    lowest = scores.argsort()[: len(plan.removed["L00.ffn_channel"])]
    assert record.removed["L00.ffn_channel"] == tuple(sorted(lowest.tolist()))
    assert record.removed != plan.removed, "the plan was random"


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
    record = reconstruct(model, graph, plan, windows(model, count=4), how="pre_pruning_refit")
    assert record.removed == plan.removed and "taylor_first cannot score" in record.notes[0]


@pytest.mark.parametrize("how", ["bias", "least_squares", "pre_pruning"])
def test_that_nothing_is_refitted_for_hidden_channels_is_said(llama: Any, how: str) -> None:
    model, graph = copy.deepcopy(llama[0]), llama[1]
    plan = planned(graph, kinds=("residual_channel",))
    record = reconstruct(model, graph, plan, windows(model, count=4), how=how)
    assert record.fits == [] and "not refitted" in record.notes[0]


def test_stacks_of_experts_are_left_as_they_are_and_said() -> None:
    model, graph = build("mixtral")
    plan = planned(graph)
    record = reconstruct(model, graph, plan, windows(model, count=4), how="least_squares")
    assert any("experts" in note and "cannot be refitted" in note for note in record.notes)
    assert {fit["module"].rpartition(".")[2] for fit in record.fits} == {"o_proj"}


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
    monkeypatch.setattr("core.recover.fitting._RANGE", 1e-6)
    record = reconstruct(model, graph, planned(graph), windows(model), how="least_squares")
    assert {fit["ridge"] for fit in record.fits} == {0.0} and len(record.fits) == 4
    for name, value in llama[0].named_parameters():
        assert torch.equal(value, model.get_parameter(name)), "weights stay, only biases come"
    assert all(model.get_parameter(name).abs().sum() > 0 for name in planned(graph).biases)
    assert len(record.notes) == 4 and all("out of range" in note for note in record.notes)


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
