"""The loss of a plan with what lies below reused, against the definition on the whole model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.evaluate.perplexity import perplexity
from core.plan.allocation import allocate
from core.recover.reconstruct import input_means, reconstructed
from core.search.compensated import compensated
from core.search.losses import Losses
from core.surgery.masks import masked
from tests.handmade import graph_of, ids, tiny

BASE = {"L00.ffn_channel": (0, 3), "L01.query_head": (1,), "L02.ffn_channel": (2,)}


@pytest.fixture(params=["llama", "qwen3"])
def case(request: pytest.FixtureRequest) -> tuple[Any, Any, torch.Tensor]:
    """A 3-layer model, its graph, 10 windows of 12 tokens."""
    model = tiny(request.param, num_hidden_layers=3)
    return model, graph_of(model), ids(model, batch=10)


def naive(model: Any, dense: torch.Tensor, windows: torch.Tensor) -> float:
    """The mean of KL(dense || pruned) over all positions, in float64."""
    with torch.no_grad():
        p, q = (torch.log_softmax(z.double(), dim=-1) for z in (dense, model(windows).logits))
    return float((p.exp() * (p - q)).sum(dim=-1).mean())


@pytest.mark.parametrize("base", [{}, BASE])
@pytest.mark.parametrize("repairs", [False, True])
def test_a_loss_is_the_divergence_of_the_whole_model(case: Any, base: Any, repairs: bool) -> None:
    model, graph, windows = case
    means = input_means(model, graph, windows) if repairs else None
    with torch.no_grad():
        dense = model(windows).logits
    losses = Losses(model, graph, windows, means)
    with losses.around(base) as here:
        with_base = {
            g: losses.without(g, (0, 1)) for g in ("L00.query_head", "L01.ffn_channel", "L02.ffn_channel")
        }
        again = losses.without("L01.ffn_channel", (0, 1))
    assert again == with_base["L01.ffn_channel"]
    with compensated(model, graph, base, means):
        assert here == pytest.approx(naive(model, dense, windows), rel=1e-4, abs=1e-6)
    for group, loss in with_base.items():
        with compensated(model, graph, {**base, group: (0, 1)}, means):
            assert loss == pytest.approx(naive(model, dense, windows), rel=1e-4, abs=1e-6)
    assert len({round(loss, 7) for loss in with_base.values()}) == 3
    assert torch.equal(model(windows).logits, dense), "the model is left as it was"


def test_compensated_is_what_the_refit_by_biases_gives(case: Any) -> None:
    model, graph, windows = case
    means = input_means(model, graph, windows)
    plan = allocate(graph, None, sparsity=0.3, biased=True)
    with compensated(model, graph, plan.removed, means):
        shifted = perplexity(model, windows).ppl
    with reconstructed(model, graph, plan, windows, how="bias"), masked(model, graph, plan.removed):
        refitted = perplexity(model, windows).ppl
    with masked(model, graph, plan.removed):
        plain = perplexity(model, windows).ppl
    assert shifted == pytest.approx(refitted, rel=1e-5) and abs(plain / shifted - 1) > 1e-4


def test_layers_below_are_not_run_again(case: Any) -> None:
    model, graph, windows = case
    losses, runs = Losses(model, graph, windows[:8], None), [0]
    hook = model.get_submodule(graph.layer_modules[0]).self_attn.register_forward_hook(
        lambda *_: runs.__setitem__(0, runs[0] + 1)
    )
    with losses.around(BASE):
        before = runs[0]
        losses.without("L01.ffn_channel", (0,))
        assert runs[0] == before
        losses.without("L00.ffn_channel", (0,))
        assert runs[0] == before + 1
    hook.remove()
