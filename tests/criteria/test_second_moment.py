"""Second moments written out: gated, fused (Phi-3) and plain (GPT-2) feed-forwards, heads, similar heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.capture.statistics import STATISTICS, capture
from core.criteria.scoring import score
from core.errors import SpecError
from core.graph.discover import discover
from core.results.similarity import algorithm_1
from tests.criteria.case import HEADS, KINDS, SHARED, WIDTH, case, found, read_by
from tests.graph.families import graph_of, model_of
from tests.handmade import ids, tiny
from tests.naive import inputs_of


def covariance(x: np.ndarray) -> np.ndarray:
    """E[x x'], (d, d)."""
    return np.mean([np.outer(row, row) for row in x], axis=0)


def test_second_moment_of_a_gated_feed_forward_is_the_product_of_its_two_modules() -> None:
    model, _, tokens = case()
    mlp = model.model.layers[0].mlp
    sigma = covariance(read_by(model, tokens, "model.layers.0.mlp.up_proj"))
    up, gate, down = (m.weight.detach().double().numpy() for m in (mlp.up_proj, mlp.gate_proj, mlp.down_proj))
    for unit in range(24):
        read = (down[:, unit] ** 2).sum()
        expected = 0.5 * (read * up[unit] @ sigma @ up[unit]) * (read * gate[unit] @ sigma @ gate[unit])
        assert found("second_moment")["L00.ffn_channel"][unit] == pytest.approx(expected, rel=1e-5)
        identity = 0.5 * (read * (up[unit] ** 2).sum()) * (read * (gate[unit] ** 2).sum())
        assert found("second_moment_data_free")["L00.ffn_channel"][unit] == pytest.approx(identity, rel=1e-5)


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
            assert np.allclose(scores[name]["L00.ffn_channel"], 0.5 * product, rtol=1e-5), (family, name)


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
        assert scores["second_moment"]["L01.query_head"][head] == pytest.approx(expected, rel=1e-5)
        assert scores["second_moment_data_free"]["L01.query_head"][head] == pytest.approx(free, rel=1e-5)
    for name in ("second_moment", "second_moment_data_free"):  # a key-value unit is its query heads
        pairs = scores[name]["L01.query_head"].reshape(-1, SHARED).sum(axis=1)
        assert np.allclose(scores[name]["L01.kv_group"], pairs, rtol=1e-5)


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
        assert np.allclose(scores["second_moment_data_free"]["L00.query_head"], expected, rtol=1e-5), family


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
