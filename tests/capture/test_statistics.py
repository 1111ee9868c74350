"""Captured statistics against their definitions, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.capture.divergence import similarity
from core.capture.losses import next_token_loss
from core.capture.moments import Moments
from core.capture.statistics import STATISTICS, capture
from core.errors import DataError, StopRequested, UnknownNameError
from tests.handmade import graph_of, ids, tiny
from tests.naive import inputs_of, naive_products

NEEDS = {"gradient_first_per_sample"}
INPUTS = {"input_mean", "input_variance", "input_norm", "input_second_moment"}
KINDS = ("query_head", "ffn_channel", "residual_channel")


#: What is taken of every sample's w g, and what of the mean over samples.
PER_INDEX = {
    "gradient_sum": (lambda f: f, lambda mean: mean),
    "gradient_first": (lambda f: f, torch.abs),
    "gradient_mix": (lambda f: f - f**2 / 2, torch.abs),
    "gradient_second": (torch.square, lambda mean: mean),
    "gradient_first_per_sample": (torch.abs, lambda mean: mean),
    "gradient_mix_per_sample": (lambda f: (f - f**2 / 2).abs(), lambda mean: mean),
}


def test_gradient_statistics_equal_plain_autograd_sample_by_sample() -> None:
    model = tiny("qwen2")
    graph, tokens = graph_of(model), ids(model, batch=5)
    found = capture(model, graph, tokens, needs=set(PER_INDEX), kinds=KINDS)
    products = naive_products(model, tokens)
    assert set(products[0]) == {name for name, _ in found.values["gradient_first_per_sample"]}
    for statistic, (of, last) in PER_INDEX.items():
        for (name, dim), vector in found.values[statistic].items():
            mean = last(torch.stack([of(product[name]) for product in products]).mean(dim=0))
            others = [d for d in range(mean.dim()) if d != dim]
            reference = mean.sum(dim=others) if others else mean
            assert torch.allclose(vector, reference, atol=1e-5, rtol=1e-4), (statistic, name, dim)
    assert (found.windows, found.tokens, found.predicted) == (5, 5 * 12, 5 * 11)


def test_a_batch_is_as_good_as_single_samples_where_the_statistic_is_linear() -> None:
    model = tiny()
    graph, tokens = graph_of(model), ids(model, batch=4)
    calls: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, given: calls.append(len(given["input_ids"])), with_kwargs=True
    )
    one = capture(model, graph, tokens, needs={"gradient_sum"}, batch_size=3)
    assert calls == [3, 1]
    two = capture(model, graph, tokens, needs={"gradient_sum", *NEEDS}, batch_size=3)
    assert calls == [3, 1, 1, 1, 1, 1]
    for key, vector in one.values["gradient_sum"].items():
        assert torch.allclose(vector, two.values["gradient_sum"][key], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_moments_equal_numpy_and_padding_does_not_count(batch_size: int) -> None:
    model = tiny()
    graph, tokens = graph_of(model), ids(model, batch=5)
    tokens[1, 6:], tokens[3, 0] = 0, 1  # padding and a begin token
    needs = INPUTS | {"output_second_moment"}
    found = capture(model, graph, tokens, needs=needs, batch_size=batch_size, kinds=KINDS)
    counted = ((tokens != 0) & (tokens != 1)).flatten().numpy()
    assert found.tokens == counted.sum() == 53
    for layer, module in ((0, "self_attn.o_proj"), (1, "mlp.down_proj"), (0, "mlp.gate_proj")):
        name = f"model.layers.{layer}.{module}"
        x = inputs_of(model, tokens, name)[0][counted]
        expected = {
            "input_mean": x.mean(axis=0),
            "input_variance": x.var(axis=0, ddof=1),
            "input_norm": np.linalg.norm(x, axis=0),
            "input_second_moment": (x**2).mean(axis=0),
        }
        for statistic, reference in expected.items():
            got = found.values[statistic][f"{name}.weight", 1].numpy()
            assert np.allclose(got, reference, atol=1e-6, rtol=1e-4), (name, statistic)
    made = inputs_of(model, tokens, "model.layers.1.mlp.up_proj")[1][counted]
    got = found.values["output_second_moment"]["model.layers.1.mlp.up_proj.weight", 0].numpy()
    assert np.allclose(got, (made**2).mean(axis=0), rtol=1e-4)
    assert "lm_head.weight" in {name for name, _ in found.values["input_norm"]}


def test_the_running_variance_does_not_cancel() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(1000, 3)) * [1.0, 1e-2, 10.0] + [1000.0, 5.0, 0.0]).astype(np.float32)
    moments = Moments()
    for rows in np.split(x, [1, 2, 100, 100, 700]):
        moments.add(torch.from_numpy(rows))
    assert moments.count == 1000
    assert np.allclose(moments.variance.numpy(), x.astype(np.float64).var(axis=0, ddof=1), rtol=1e-3)
    assert np.allclose(moments.mean.numpy(), x.mean(axis=0, dtype=np.float64), rtol=1e-5)
    alone = Moments()
    alone.add(torch.ones(1, 2))
    assert alone.variance.tolist() == [0, 0] and alone.norm.tolist() == [1, 1]


def test_everything_is_had_in_one_pass() -> None:
    model = tiny()
    graph, tokens = graph_of(model), ids(model, batch=3)
    passes: list[int] = []
    model.model.register_forward_hook(lambda *_: passes.append(1))
    found = capture(model, graph, tokens, needs=set(STATISTICS))
    assert len(passes) == 3 and found.captured == set(STATISTICS)
    for needs in ({"gradient_coarse"}, {"input_variance"}, {"head_divergence"}):
        alone = capture(model, graph, tokens, needs=needs)
        for key, value in alone.values.get("input_variance", {}).items():
            assert torch.allclose(value, found.values["input_variance"][key], rtol=1e-4, atol=1e-7)
        for group, parts in alone.structures.items():
            assert all(map(torch.allclose, parts, found.structures[group]))
        for layer, distances in alone.divergence.items():
            assert torch.allclose(distances, found.divergence[layer], atol=1e-6)
    shown = similarity(model, graph, tokens, text="t").divergence
    assert np.allclose(np.stack([found.divergence[layer] for layer in (0, 1)]), shown, atol=1e-6)


def test_tied_embeddings_get_the_sum_of_both_uses() -> None:
    model = tiny(tie_word_embeddings=True)
    graph, tokens = graph_of(model), ids(model)
    found = capture(model, graph, tokens, needs=NEEDS, kinds=("residual_channel",))
    products = [product["model.embed_tokens.weight"].abs() for product in naive_products(model, tokens)]
    expected = torch.stack(products).mean(dim=0).sum(dim=0)
    got = found.values["gradient_first_per_sample"]["model.embed_tokens.weight", 1]
    assert torch.allclose(got, expected, atol=1e-5, rtol=1e-4)


def test_the_model_is_left_as_it_was() -> None:
    model = tiny().train()
    graph, tokens = graph_of(model), ids(model)
    model.lm_head.weight.requires_grad_(False)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    state = {name: p.clone() for name, p in model.state_dict().items()}
    capture(model, graph, tokens, needs=NEEDS)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before
    assert all(p.grad is None for p in model.parameters()) and model.training
    assert all(torch.equal(state[name], p) for name, p in model.state_dict().items())
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_only_parameters_in_scope_are_looked_at_and_gradients_do_not_pile_up() -> None:
    model = tiny()
    graph, tokens = graph_of(model), ids(model)
    alive: list[int] = []

    def count(_: torch.nn.Module, args: object, out: object) -> None:
        alive.append(sum(p.grad is not None for p in model.parameters()))

    model.model.register_forward_hook(count)
    found = capture(model, graph, tokens, needs=NEEDS, batch_size=1, kinds=("ffn_channel",))
    assert {name.split(".")[3] for name, _ in found.values["gradient_first_per_sample"]} == {"mlp"}
    assert alive == [0, 0]


def test_special_tokens_are_not_predicted() -> None:
    model = tiny()
    graph, tokens = graph_of(model), ids(model, batch=2, length=10)
    padded = torch.cat([tokens, torch.zeros(2, 4, dtype=torch.long)], dim=1)
    plain, longer = (capture(model, graph, one, needs=NEEDS) for one in (tokens, padded))
    assert plain.predicted == longer.predicted == 18 and plain.tokens == longer.tokens == 20
    assert plain.loss == pytest.approx(longer.loss, rel=1e-5)
    for key, vector in plain.values["gradient_first_per_sample"].items():
        assert torch.allclose(vector, longer.values["gradient_first_per_sample"][key], atol=1e-5, rtol=1e-3)


def test_progress_is_told_and_may_stop_the_pass() -> None:
    model = tiny()
    graph, tokens = graph_of(model), ids(model, batch=5)
    told: list[tuple[int, int]] = []
    capture(model, graph, tokens, needs=NEEDS, batch_size=2, on_progress=lambda *at: told.append(at))
    assert told == [(n, 5) for n in range(1, 6)]
    told.clear()
    capture(model, graph, tokens, needs={"input_norm"}, batch_size=2, on_progress=lambda *at: told.append(at))
    assert told == [(2, 5), (4, 5), (5, 5)]

    told.clear()
    capture(model, graph, tokens, needs={"gradient_first"}, on_progress=lambda *at: told.append(at))
    assert told == [(n, 5) for n in range(1, 6)]  # as the one backward goes

    def stop(done: int, total: int) -> None:
        raise StopRequested("stop")

    for needs in (NEEDS, {"gradient_first"}):
        with pytest.raises(StopRequested):
            capture(model, graph, tokens, needs=needs, on_progress=stop)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_bad_requests_are_explained() -> None:
    model = tiny()
    graph = graph_of(model)
    with pytest.raises(UnknownNameError, match="gradient_first"):
        capture(model, graph, ids(model), needs={"moon_phase"})
    for needs in (NEEDS, {"input_norm"}, {"head_divergence"}):
        with pytest.raises(DataError, match="special tokens"):
            capture(model, graph, torch.zeros(2, 8, dtype=torch.long), needs=needs)
    with pytest.raises(DataError, match="special tokens"):
        similarity(model, graph, torch.zeros(2, 8, dtype=torch.long), text="t")


def test_the_loss_of_a_batch_is_the_models_own() -> None:
    model = tiny()
    tokens = ids(model, batch=3)
    tokens[0, 5:] = 0
    loss, predicted = next_token_loss(model, tokens)
    expected = model(tokens, labels=tokens.masked_fill(tokens == 0, -100), use_cache=False).loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5) and predicted == 4 + 22
    with pytest.raises(DataError, match="special tokens"):
        next_token_loss(model, torch.zeros(2, 8, dtype=torch.long))


def test_a_damaged_weight_is_named() -> None:
    model = tiny()
    graph = graph_of(model)
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = torch.nan
    for needs in (NEEDS, {"input_variance"}):
        with pytest.raises(DataError, match=r"model.layers.1.mlp.up_proj.weight holds 1 of 768 numbers"):
            capture(model, graph, ids(model), needs=needs)


def test_numbers_that_overflow_are_told_from_damaged_weights() -> None:
    model = tiny()
    graph = graph_of(model)
    model.model.layers[0].mlp.up_proj.weight.data.mul_(1e30)
    with pytest.raises(DataError, match="--dtype float32"):
        capture(model, graph, ids(model), needs={"input_second_moment"})


def test_a_window_of_padding_is_passed_over() -> None:
    model = tiny()
    graph, tokens = graph_of(model), ids(model, batch=2)
    padded = torch.cat([tokens, torch.zeros(1, 12, dtype=torch.long)])
    plain, longer = (capture(model, graph, one, needs=NEEDS | INPUTS) for one in (tokens, padded))
    for statistic, by_key in plain.values.items():
        for key, vector in by_key.items():
            assert torch.allclose(vector, longer.values[statistic][key], rtol=1e-5, atol=1e-8)
