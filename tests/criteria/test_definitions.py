"""Every criterion against its definition, written out naively for one unit after the other.

Only tests may know layer names: Llama-like models with grouped-query attention and biases (Qwen2), a
plain feed-forward with fused attention (GPT-2), a fused gate (Phi-3).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.capture import STATISTICS, capture
from core.criteria import CRITERIA, score
from core.errors import DataError, SpecError
from core.graph.discover import discover
from core.graph.records import Graph
from core.heads import algorithm_1
from tests.graph.families import graph_of, model_of
from tests.handmade import ids, tiny
from tests.naive import inputs_of, naive_products

KINDS = ("query_head", "kv_group", "ffn_channel", "residual_channel")
HEADS, SHARED, WIDTH = 4, 2, 8


@cache
def case() -> tuple[PreTrainedModel, Graph, Tensor]:
    model = tiny("qwen2")
    tokens = ids(model, batch=3)
    tokens[1, 9:] = 0  # padding
    return model, discover(model, name="tiny"), tokens


@cache
def found(name: str, **options: object) -> dict[str, np.ndarray]:
    model, graph, tokens = case()
    statistics = capture(model, graph, tokens, needs=set(STATISTICS), kinds=KINDS)
    return score(model, graph, [name], statistics, seed=0, options=options)[name]


@cache
def products() -> list[dict[str, Tensor]]:
    """w g_s of each sample, padding cut off."""
    model, _, tokens = case()
    return [one for row in tokens for one in naive_products(model, row[row != 0][None])]


def structures(group: str, unit: int) -> list[tuple[str, slice, int, float]]:
    """The parameters a unit owns part of: name, indices, dimension, share."""
    layer = f"model.layers.{int(group[1:3])}"
    if group.endswith("ffn_channel"):
        one = slice(unit, unit + 1)
        rows = [(f"{layer}.mlp.{name}_proj.weight", one, 0, 1.0) for name in ("gate", "up")]
        return [*rows, (f"{layer}.mlp.down_proj.weight", one, 1, 1.0)]
    own, shared = slice(unit * WIDTH, (unit + 1) * WIDTH), unit // SHARED
    kv = slice(shared * WIDTH, (shared + 1) * WIDTH)
    at = f"{layer}.self_attn"
    mine = [(f"{at}.q_proj.{kind}", own, 0, 1.0) for kind in ("weight", "bias")]
    mine.append((f"{at}.o_proj.weight", own, 1, 1.0))
    theirs = [(f"{at}.{name}_proj.{kind}", kv, 0, 1 / SHARED) for name in "kv" for kind in ("weight", "bias")]
    return mine + theirs


def cut(values: Tensor, indices: slice, dim: int) -> Tensor:
    return values[indices] if dim == 0 else values[:, indices]


def per_sample(group: str, unit: int, of: Callable[[Tensor], Tensor]) -> list[tuple[str, float]]:
    """Per structure: share times the mean over samples of `of`(w g_s on the structure)."""
    result = []
    for name, indices, dim, share in structures(group, unit):
        terms = [of(cut(product[name], indices, dim)).item() for product in products()]
        result.append((name, share * float(np.mean(terms))))
    return result


def fused(f: Tensor) -> Tensor:
    coarse = (f.sum() - f.sum() ** 2 / 2).abs()
    fine = sum((one - one**2 / 2).abs() for one in f.flatten())
    return coarse + fine


TAYLOR = {
    "taylor_first": lambda f: f.abs().sum(),
    "taylor_second": lambda f: (f**2).sum(),
    "taylor_mix": lambda f: (f - f**2 / 2).abs().sum(),
    "fusion": fused,
}
AGGREGATE = {
    "sum": lambda parts: sum(value for _, value in parts),
    "max": lambda parts: max(value for _, value in parts),
    "prod": lambda parts: np.prod([v for name, v in parts if "bias" not in name]),
    "last": lambda parts: next(v for name, v in parts if "o_proj" in name or "down_proj" in name),
}


@pytest.mark.parametrize("aggregation", AGGREGATE)
@pytest.mark.parametrize("name", TAYLOR)
@pytest.mark.parametrize("group", ["L01.query_head", "L00.ffn_channel"])
def test_taylor_and_fusion_sample_by_sample(name: str, group: str, aggregation: str) -> None:
    scores = found(name, aggregation=aggregation)[group]
    for unit in (0, 1, 3):
        parts = per_sample(group, unit, TAYLOR[name])
        expected = AGGREGATE[aggregation](parts)
        if aggregation == "prod":  # the geometric mean, which ranks as the product
            expected = expected ** (1 / sum("bias" not in one for one, _ in parts))
        assert scores[unit] == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("group", ["L01.query_head", "L00.ffn_channel"])
def test_taylor_vector_is_the_size_of_each_structures_sum_over_all_samples(group: str) -> None:
    for unit in (0, 2):
        expected = sum(abs(value) for _, value in per_sample(group, unit, torch.sum))
        assert found("taylor_vector")[group][unit] == pytest.approx(expected, rel=2e-3)


def test_the_mean_of_the_squares_is_not_the_square_of_the_mean() -> None:
    """The Fisher diagonal needs each sample's own gradient."""
    model, graph, tokens = case()
    twice = torch.cat([tokens[:1], tokens[:1]])
    needs = {"gradient_second"}
    one, same, both = (
        score(model, graph, ["taylor_second"], capture(model, graph, t, needs=needs), seed=0)["taylor_second"]
        for t in (tokens[:1], twice, tokens[::2])
    )
    assert np.allclose(one["L00.ffn_channel"], same["L00.ffn_channel"], rtol=1e-4)
    batch = tokens[::2]
    model.zero_grad()
    model(batch, labels=batch, use_cache=False).loss.backward()
    mlp = model.model.layers[0].mlp
    whole = sum((p * p.grad).square().sum(dim=1 - d) for p, d in (
        (mlp.gate_proj.weight, 0), (mlp.up_proj.weight, 0), (mlp.down_proj.weight, 1)
    ))  # fmt: skip
    model.zero_grad()
    assert not np.allclose(both["L00.ffn_channel"], whole.detach().numpy(), rtol=0.1)


def read_by(model: PreTrainedModel, tokens: Tensor, name: str) -> np.ndarray:
    return inputs_of(model, tokens, name)[0][(tokens != 0).flatten().numpy()]


def forward_only(name: str, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """One score per input channel from inputs (tokens, d_in) and a weight (d_out, d_in)."""
    tokens = len(x)
    mean = x.sum(axis=0) / tokens
    variance = ((x - mean) ** 2).sum(axis=0) / (tokens - 1)
    norm = np.sqrt((x**2).sum(axis=0))
    squares = (w**2).sum(axis=0)
    return {
        "wanda": np.abs(w).sum(axis=0) * norm,
        "ifv": variance,
        "wifv": variance * squares,
        "wifn": np.abs(w).mean(axis=0) * norm,
    }[name]


@pytest.mark.parametrize("name", ["wanda", "ifv", "wifv", "wifn"])
def test_forward_only_criteria(name: str) -> None:
    model, _, tokens = case()
    for group, module, width in (
        ("L00.ffn_channel", model.model.layers[0].mlp.down_proj, 1),
        ("L01.query_head", model.model.layers[1].self_attn.o_proj, WIDTH),
        ("L01.kv_group", model.model.layers[1].self_attn.o_proj, WIDTH * SHARED),
    ):
        path = next(n for n, m in model.named_modules() if m is module)
        weight = module.weight.detach().double().numpy()
        per_channel = forward_only(name, read_by(model, tokens, path), weight)
        expected = per_channel.reshape(-1, width).sum(axis=1)
        assert np.allclose(found(name)[group], expected, rtol=1e-3), group


def test_residual_channels_are_read_by_every_layer() -> None:
    model, _, tokens = case()
    names = [
        f"model.layers.{layer}.{one}_proj"
        for layer in (0, 1)
        for one in ("self_attn.q", "self_attn.k", "self_attn.v", "mlp.gate", "mlp.up")
    ]
    expected = sum(
        forward_only("wanda", read_by(model, tokens, n), model.get_submodule(n).weight.detach().numpy())
        for n in [*names, "lm_head"]
    )
    assert np.allclose(found("wanda")["residual_channel"], expected, rtol=1e-3)


def covariance(x: np.ndarray) -> np.ndarray:
    """E[x x'], (d, d)."""
    return sum(np.outer(row, row) for row in x) / len(x)


def test_second_moment_of_a_gated_feed_forward_is_the_product_of_its_two_modules() -> None:
    model, _, tokens = case()
    mlp = model.model.layers[0].mlp
    sigma = covariance(read_by(model, tokens, "model.layers.0.mlp.up_proj"))
    up, gate, down = (m.weight.detach().double().numpy() for m in (mlp.up_proj, mlp.gate_proj, mlp.down_proj))
    for unit in range(24):
        read = (down[:, unit] ** 2).sum()
        expected = 0.5 * (read * up[unit] @ sigma @ up[unit]) * (read * gate[unit] @ sigma @ gate[unit])
        assert found("second_moment")["L00.ffn_channel"][unit] == pytest.approx(expected, rel=1e-3)
        identity = 0.5 * (read * (up[unit] ** 2).sum()) * (read * (gate[unit] ** 2).sum())
        assert found("second_moment_data_free")["L00.ffn_channel"][unit] == pytest.approx(identity, rel=1e-4)


def test_second_moment_of_a_fused_gate_and_of_a_plain_feed_forward() -> None:
    for family, first, second, gated in (
        ("phi3", "gate_up_proj", "down_proj", True),
        ("gpt2", "c_fc", "c_proj", False),
    ):
        model, graph = model_of(family), graph_of(family)
        tokens = ids(model)
        statistics = capture(model, graph, tokens, needs=set(STATISTICS))
        scores = score(model, graph, ["second_moment", "second_moment_data_free"], statistics, seed=0)
        mlp = next(m for n, m in model.named_modules() if n.endswith(".0.mlp"))
        path = next(n for n, m in model.named_modules() if m is mlp)
        a, b = (mlp.get_submodule(n).weight.detach().double().numpy() for n in (first, second))
        a, b = (a, b) if gated else (a.T, b.T)  # Conv1D keeps its weight the other way round
        _, made = inputs_of(model, tokens, f"{path}.{first}")
        energy, squares = (made**2).mean(axis=0), (a**2).sum(axis=1)
        read = (b**2).sum(axis=0)
        half = len(read)
        for name, size in (("second_moment", energy), ("second_moment_data_free", squares)):
            product = read * size[:half] * (read * size[half:] if gated else 1)
            assert np.allclose(scores[name]["L00.ffn_channel"], 0.5 * product, rtol=1e-3), (family, name)


def test_second_moment_of_a_head_is_taken_on_its_attention_mixed_input() -> None:
    """Without biases, Appendix 7.1 to the letter: x^ = softmax(q k') x, S its second moment."""
    model = tiny()
    graph, tokens = discover(model, name="tiny"), ids(model, batch=3)
    model.set_attn_implementation("eager")
    statistics = capture(model, graph, tokens, needs=set(STATISTICS))
    scores = score(model, graph, ["second_moment", "second_moment_data_free"], statistics, seed=0)
    with torch.no_grad():
        attention = model(tokens, output_attentions=True, use_cache=False).attentions[1].double()
    block = model.model.layers[1].self_attn
    x = torch.from_numpy(inputs_of(model, tokens, "model.layers.1.self_attn.v_proj")[0]).view(3, 12, 32)
    v, o = (m.weight.detach().double().numpy() for m in (block.v_proj, block.o_proj))
    for head in range(HEADS):
        mixed = (attention[:, head] @ x).flatten(0, 1).numpy()  # (tokens, hidden)
        sigma = covariance(mixed)
        rows = v[(head // SHARED) * WIDTH :][:WIDTH]
        columns = o[:, head * WIDTH :][:, :WIDTH]
        expected = sum((columns[:, c] ** 2).sum() * rows[c] @ sigma @ rows[c] for c in range(WIDTH))
        free = sum((columns[:, c] ** 2).sum() * (rows[c] ** 2).sum() for c in range(WIDTH))
        assert scores["second_moment"]["L01.query_head"][head] == pytest.approx(expected, rel=1e-3)
        assert scores["second_moment_data_free"]["L01.query_head"][head] == pytest.approx(free, rel=1e-4)
    for name in ("second_moment", "second_moment_data_free"):  # a key-value unit is its query heads
        pairs = scores[name]["L01.query_head"].reshape(-1, SHARED).sum(axis=1)
        assert np.allclose(scores[name]["L01.kv_group"], pairs, rtol=1e-3)


def test_data_free_second_moment_finds_the_values_in_a_fused_matrix() -> None:
    for family in ("gpt2", "bloom", "phi3", "gpt_neox"):
        model, graph = model_of(family), graph_of(family)
        scores = score(model, graph, ["second_moment_data_free"], None, seed=0, kinds=["query_head"])
        block = model.get_submodule(graph.attentions[0].module)
        weights = [m.weight.detach() for m in block.modules() if getattr(m, "weight", None) is not None]
        out, fused = sorted((w.T if family == "gpt2" else w for w in weights), key=len)
        if family in ("gpt2", "phi3"):  # [queries, keys, values]
            values = fused[-8 * graph.attentions[0].kv_heads :].view(-1, 8, 48)
        else:  # per head: query, key, value
            values = fused.view(6, 3, 8, 48)[:, 2]
        values = values.repeat_interleave(6 // len(values), dim=0)  # (heads, channels, hidden)
        expected = (values.square().sum(dim=2) * out.square().sum(dim=0).view(6, 8)).sum(dim=1)
        assert np.allclose(scores["second_moment_data_free"]["L00.query_head"], expected, rtol=1e-4), family


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
def test_similar_heads_go_first_then_the_least_second_moment(tau: float) -> None:
    model, graph, tokens = case()
    statistics = capture(model, graph, tokens, needs=set(STATISTICS), kinds=KINDS)
    for layer in (0, 1):
        chosen = algorithm_1(statistics.divergence[layer], tau)
        moments = found("second_moment")[f"L{layer:02d}.query_head"]
        order = np.argsort(found("similar_heads", tau=tau)[f"L{layer:02d}.query_head"]).tolist()
        rest = [head for head in np.argsort(moments).tolist() if head not in chosen]
        assert order == sorted(chosen, key=lambda head: moments[head]) + rest
        whole = [unit for unit in (0, 1) if {2 * unit, 2 * unit + 1} <= set(chosen)]
        groups = found("similar_heads", tau=tau)[f"L{layer:02d}.kv_group"]
        assert [unit for unit in (0, 1) if groups[unit] < 0] == whole
    assert (tau > 0) == any(algorithm_1(statistics.divergence[layer], tau) for layer in (0, 1))
    for name in ("L00.ffn_channel", "residual_channel"):
        assert np.array_equal(found("similar_heads", tau=tau)[name], found("second_moment")[name])


def test_tau_is_a_distance() -> None:
    with pytest.raises(SpecError, match=r"tau must be a number from 0 to 1, got 1\.5"):
        found("similar_heads", tau=1.5)


@pytest.mark.parametrize("name", [n for n in CRITERIA.names() if n not in ("random", "l1", "l2")])
def test_only_the_query_heads_of_the_key_value_head_that_matters_matter(name: str) -> None:
    """Query heads of key-value head k are k*g … k*g+g-1: with all others silenced, they come out on top."""
    model = tiny(heads=6, kv_heads=3, hidden_size=48)
    graph, tokens = discover(model, name="tiny"), ids(model)
    with torch.no_grad():
        for layer in model.model.layers:
            for kept in (0, 2):
                layer.self_attn.v_proj.weight[kept * WIDTH : (kept + 1) * WIDTH] *= 1e-4
    statistics = capture(model, graph, tokens, needs=set(STATISTICS))
    options = {"tau": 0.0} if name == "similar_heads" else {}
    scores = score(model, graph, [name], statistics, seed=0, options=options)[name]
    for layer in ("L00", "L01"):
        heads = np.argsort(scores[f"{layer}.query_head"])[-2:]
        assert sorted(heads.tolist()) == [2, 3], scores[f"{layer}.query_head"]
        assert scores[f"{layer}.kv_group"].argmax() == 1


@pytest.mark.parametrize("name", [n for n in CRITERIA.names() if n != "random"])
def test_permuting_channels_permutes_scores(name: str) -> None:
    model = tiny()
    graph, tokens = discover(model, name="tiny"), ids(model)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))

    def scored() -> np.ndarray:
        statistics = capture(model, graph, tokens, needs=set(CRITERIA[name].needs), kinds=("ffn_channel",))
        return score(model, graph, [name], statistics, seed=0, kinds=["ffn_channel"])[name]["L00.ffn_channel"]

    before, mlp = scored(), model.model.layers[0].mlp
    with torch.no_grad():
        mlp.gate_proj.weight.copy_(mlp.gate_proj.weight[order])
        mlp.up_proj.weight.copy_(mlp.up_proj.weight[order])
        mlp.down_proj.weight.copy_(mlp.down_proj.weight[:, order])
    assert np.allclose(scored(), before[order.numpy()], rtol=2e-3)


def test_experts_that_cannot_be_watched_are_named_with_the_criterion() -> None:
    model, graph = model_of("mixtral"), graph_of("mixtral")
    statistics = capture(model, graph, ids(model), needs=set(STATISTICS))
    for name in ("wanda", "wifv", "second_moment"):
        with pytest.raises(
            DataError, match=rf"{name} cannot score ffn_channel L00.ffn_channel.e00: .*down_proj"
        ):
            score(model, graph, [name], statistics, seed=0)
        heads = score(model, graph, [name], statistics, seed=0, kinds=["query_head"])
        assert set(heads[name]) == {"L00.query_head", "L01.query_head"}
    for name in ("taylor_first", "fusion", "second_moment_data_free"):
        assert "L00.ffn_channel.e03" in score(model, graph, [name], statistics, seed=0)[name]


def test_damaged_weights_are_named_by_criteria_without_data() -> None:
    model = tiny()
    graph = discover(model, name="tiny")
    model.model.layers[1].self_attn.o_proj.weight.data[0, 0] = torch.inf
    with pytest.raises(DataError, match=r"model.layers.1.self_attn.o_proj.weight holds 1 of 1,024"):
        score(model, graph, ["l2"], None, seed=0)
