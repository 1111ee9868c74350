"""LoRA's gradients as a criterion: equal to the definition written out, and once gone a unit stays gone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.capture.losses import next_token_loss
from core.errors import NotPrunableError
from core.graph.discover import discover
from core.nuteprune.lora_gradient import LoraGradient
from tests.graph.families import build
from tests.handmade import graph_of, ids, tiny
from tests.nuteprune.small import Trainer, of_model, settings, trainer


def felt(loop: Trainer) -> Tensor:
    """Train two steps, so that B is no longer 0, and leave the gradients of an unmasked batch behind."""
    for _ in range(2):
        loop.step()
    model = loop.training.twin.act(torch.ones_like(loop.training.gates.log_alpha))
    next_token_loss(model, ids(model))[0].backward()
    return LoraGradient(
        loop.training.twin.model, loop.training.masks.graph, loop.training.groups, loop.training.gates
    ).importance()


def naive(loop: Trainer, matrix: str) -> Tensor:
    """(dL/dW' * W')^2 of one matrix, (out, in): the gradient as a step of length 1 would move the product."""
    tensors, weights = loop.training.twin.updates(), dict(loop.training.twin.model.named_parameters())
    a, b = tensors[f"{matrix}.lora_A.weight"], tensors[f"{matrix}.lora_B.weight"]
    assert a.grad is not None and b.grad is not None and b.abs().max() > 0
    moved = b @ a - (b - b.grad) @ (a - a.grad)
    scale = loop.training.settings.lora_alpha / loop.training.settings.lora_rank
    return ((weights[f"{matrix}.base_layer.weight"] + scale * b @ a) * moved).square().detach()


def test_importance_is_the_definition_written_out(tmp_path: Path) -> None:
    """Channels own rows of gate and up and a column of down; heads share keys and values two by two."""
    loop = trainer(tmp_path, rule="lora_gradient")
    importance = loop.training.gates.split(felt(loop))
    for layer in range(2):
        mlp, attention = f"model.layers.{layer}.mlp", f"model.layers.{layer}.self_attn"
        gate, up, down = (naive(loop, f"{mlp}.{one}_proj") for one in ("gate", "up", "down"))
        channels = [gate[u].sum() + up[u].sum() + down[:, u].sum() for u in range(24)]
        assert torch.allclose(importance[f"L{layer:02d}.ffn_channel"], torch.stack(channels), rtol=1e-4)
        q, k, v, o = (naive(loop, f"{attention}.{one}_proj") for one in "qkvo")
        heads = []
        for head in range(4):
            own, shared = slice(head * 8, head * 8 + 8), slice(head // 2 * 8, head // 2 * 8 + 8)
            heads.append(q[own].sum() + o[:, own].sum() + (k[shared].sum() + v[shared].sum()) / 2)
        assert torch.allclose(importance[f"L{layer:02d}.query_head"], torch.stack(heads), rtol=1e-4)


def test_the_guessed_gradient_points_the_way_of_the_true_one(tmp_path: Path) -> None:
    """At the start, where B is 0, it is the true gradient seen through A."""
    loop = trainer(tmp_path, rule="lora_gradient")
    model = loop.training.twin.act(torch.ones_like(loop.training.gates.log_alpha))
    weight = dict(model.named_parameters())["model.layers.1.mlp.down_proj.base_layer.weight"]
    weight.requires_grad_(True)
    next_token_loss(model, ids(model))[0].backward()
    tensors = loop.training.twin.updates()
    a, b = (tensors[f"model.layers.1.mlp.down_proj.lora_{one}.weight"] for one in "AB")
    assert weight.grad is not None and b.grad is not None
    scale = loop.training.settings.lora_alpha / loop.training.settings.lora_rank
    assert torch.allclose(b.grad @ a, scale * weight.grad @ a.T @ a, rtol=1e-3, atol=1e-6)


def test_the_mean_forgets_slowly_and_what_has_gone_stays_gone(tmp_path: Path) -> None:
    loop = trainer(tmp_path, rule="lora_gradient", steps=10, settle=0.1, kinds=("ffn_channel",))
    loop.step()
    first, went = loop.training.masks.importance.clone(), loop.training.masks.certain() == 0
    assert torch.equal(first == 0, went) and bool(went.any())  # nothing flows through what has gone
    loop.training.masks.note(torch.rand(first.shape, generator=torch.Generator().manual_seed(0)))
    now = torch.rand(first.shape, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(loop.training.masks.importance, torch.where(went, 0.0, 0.9 * first + 0.1 * now))
    gone = set[tuple[str, int]]()
    while loop.state.step < 10:
        loop.step()
        going = {(group, unit) for group, units in loop.training.masks.plan.removed.items() for unit in units}
        assert gone <= going
        gone = going
    assert loop.training.masks.plan.sparsity == pytest.approx(0.3, abs=0.02)


def test_units_that_matter_least_go_whatever_their_kind(tmp_path: Path) -> None:
    """Heads and channels are told apart by how far they lie below their own kind."""
    loop = trainer(tmp_path, rule="lora_gradient", steps=1000)
    loop.training.masks.aim(0)  # hardly anything has gone
    groups = loop.training.gates.split(torch.linspace(0.5, 1.5, len(loop.training.gates.log_alpha)))
    groups["L00.query_head"][:] = torch.tensor([100.0, 110.0, 1.0, 120.0])
    groups["L01.query_head"][:] = torch.tensor([130.0, 90.0, 105.0, 95.0])
    loop.training.masks.note(torch.cat(list(groups.values())))
    assert loop.training.masks.cut(share=0.4).removed["L00.query_head"] == (2,)


def test_matrices_stored_sideways_are_read_the_right_way_round(tmp_path: Path) -> None:
    model = build("gpt2")
    graph = discover(model, name="gpt2")
    loop = of_model(model, graph, settings(rule="lora_gradient", steps=4), tmp_path)
    assert bool((felt(loop) > 0).all())
    assert loop.training.masks.plan.removed


def test_units_without_lora_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(NotPrunableError, match=r"cannot rank L00.query_head.*lora_targets=all"):
        trainer(tmp_path, rule="lora_gradient", lora_targets="ffn")
    model = tiny()
    only = settings(rule="lora_gradient", lora_targets="ffn")
    assert of_model(model, graph_of(model), only, tmp_path, ("ffn_channel",)).step().finite
