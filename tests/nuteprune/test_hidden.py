"""Hidden channels as the paper masks them, against a Llama written out in float64: Eq. 1, 2 and 6."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.graph.discover import discover
from core.nuteprune.gates import Gates
from core.nuteprune.twin import Snapshot, Twin
from core.recover.losses import layer_loss
from core.surgery.masks import apply_soft_masks
from tests.graph.families import build
from tests.handmade import graph_of, ids, logits, tiny

KINDS = ("query_head", "ffn_channel", "residual_channel")


@dataclass
class ByHand:
    """A grouped-query Llama of two layers in float64, masked as NutePrune's Eq. 1 and 2 say."""

    model: PreTrainedModel
    z: dict[str, Tensor]

    def forward(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits, and the hidden embedding h_l of every layer."""
        w = {name: value.double() for name, value in self.model.state_dict().items()}
        hidden, layers = self.z["residual_channel"], list[Tensor]()
        h = w["model.embed_tokens.weight"][tokens] * hidden
        for layer in range(2):
            at = f"model.layers.{layer}"
            x = self._norm(h, w[f"{at}.input_layernorm.weight"])
            h = h + hidden * self._attention(x, w, f"{at}.self_attn", self.z[f"L{layer:02d}.query_head"])
            x = self._norm(h, w[f"{at}.post_attention_layernorm.weight"])
            up, gate = x @ w[f"{at}.mlp.up_proj.weight"].T, x @ w[f"{at}.mlp.gate_proj.weight"].T
            inner = self.z[f"L{layer:02d}.ffn_channel"] * up * gate * torch.sigmoid(gate)
            h = h + hidden * (inner @ w[f"{at}.mlp.down_proj.weight"].T)
            layers.append(h)
        return self._norm(h, w["model.norm.weight"]) @ w["lm_head.weight"].T, layers

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + self.model.config.rms_norm_eps).sqrt() * weight

    def _attention(self, x: Tensor, w: dict[str, Tensor], at: str, z: Tensor) -> Tensor:
        length, total = x.shape[1], torch.zeros_like(x)
        later = torch.ones(length, length).triu(1).bool()
        for head in range(4):
            rows, own = slice(8 * head, 8 * head + 8), slice(8 * (head // 2), 8 * (head // 2) + 8)
            q = self._turned(x @ w[f"{at}.q_proj.weight"][rows].T)
            k = self._turned(x @ w[f"{at}.k_proj.weight"][own].T)
            v = x @ w[f"{at}.v_proj.weight"][own].T
            scores = (q @ k.transpose(1, 2) / math.sqrt(8)).masked_fill(later, -math.inf)
            total = total + z[head] * (scores.softmax(-1) @ v @ w[f"{at}.o_proj.weight"][:, rows].T)
        return total

    def _turned(self, x: Tensor) -> Tensor:
        """Rotary positions: channel i and i + 4 turn together by position / 10000^(i / 4)."""
        angle = torch.arange(x.shape[1]).double()[:, None] / 10_000.0 ** (torch.arange(4).double() / 4)
        a, b, cos, sin = x[..., :4], x[..., 4:], angle.cos(), angle.sin()
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def some_factors(seed: int) -> dict[str, Tensor]:
    """Factors of every unit, a third of them 0."""
    generator = torch.Generator().manual_seed(seed)
    groups = [group for group in graph_of(tiny()).of_kind(*KINDS)]
    drawn = {group.id: torch.rand(group.units, generator=generator) for group in groups}
    return {name: torch.where(values < 1 / 3, 0.0, values) for name, values in drawn.items()}


def twin_of(model: PreTrainedModel) -> Twin:
    graph = graph_of(model)
    gates = Gates(graph.of_kind(*KINDS), 0.0)
    return Twin(model, graph, gates, rank=0, alpha=1.0, targets="all")


def joined(factors: dict[str, Tensor]) -> Tensor:
    return torch.cat([factors[group.id] for group in graph_of(tiny()).of_kind(*KINDS)])


def test_soft_masks_of_all_kinds_act_once() -> None:
    model, factors = tiny().double(), some_factors(0)
    tokens = ids(model)
    wanted, layers = ByHand(model, factors).forward(tokens)
    twin = twin_of(model)
    answer = twin.teach(tokens, Snapshot(joined(factors)), layers=True)
    assert float((answer.logits - wanted).abs().max()) < 1e-5
    for ours, theirs in zip(answer.layers, layers, strict=True):
        assert float((ours - theirs).abs().max()) < 1e-5


def test_eq_6_leaves_out_channels_at_zero() -> None:
    """The mean runs over what is left of the student: channel by channel here, as the release counts."""
    model, ours, theirs = tiny().double(), some_factors(0), some_factors(1)
    tokens, twin = ids(model), twin_of(model)
    (_, student), (_, teacher) = (ByHand(model, factors).forward(tokens) for factors in (ours, theirs))
    stays = [unit for unit in range(32) if float(ours["residual_channel"][unit])]
    wanted = 0.0
    for h, t in zip(student, teacher, strict=True):
        squares = [float((h[..., unit] - t[..., unit]).square().mean()) for unit in stays]
        wanted += sum(squares) / len(squares)
    assert 0 < len(stays) < 32
    taught = twin.teach(tokens, Snapshot(joined(theirs)), layers=True)
    twin.act(joined(ours))
    assert float(layer_loss(twin.forward(tokens, layers=True).layers, taught.layers)) == pytest.approx(
        wanted, rel=1e-5
    )


def test_eq_6_of_a_student_without_a_channel_is_no_number_to_learn_from() -> None:
    nothing = [torch.zeros(1, 2, 3, requires_grad=True)]
    loss = layer_loss(nothing, [torch.ones(1, 2, 3)])
    loss.backward()
    assert float(loss.detach()) == 0.0


def test_a_mask_of_hidden_channels_learns_at_zero_too() -> None:
    """As movement pruning needs it: the derivative in a factor that is 0 is not 0."""
    model = tiny()
    mask = torch.ones(32)
    mask[3] = 0.0
    mask.requires_grad_()
    handle = apply_soft_masks(model, graph_of(model), {"residual_channel": mask})
    model(ids(model), use_cache=False).logits.square().mean().backward()
    handle.remove()
    assert mask.grad is not None and bool((mask.grad != 0).all())


@pytest.mark.parametrize(
    "family", ["gpt2", "bloom", "olmo2", "gemma3", "mixtral", "gpt_oss", "nemotron", "opt"]
)
def test_a_closed_channel_is_silent_in_every_family(family: str) -> None:
    """Soft factors and hard zeros together: scaling what a closed channel holds changes nothing."""
    model = build(family)
    graph = discover(model, name=family)
    group = graph.group("residual_channel")
    mask = torch.rand(group.units) * 0.5 + 0.5
    mask[::3] = 0.0
    tokens, closed = ids(model), torch.arange(0, group.units, 3)
    handle = apply_soft_masks(model, graph, {group.id: mask})
    before = logits(model, tokens)
    with torch.no_grad():
        for member in group.members:
            if member.role == "layer2" and member.at is None and member.width == 1:
                model.get_parameter(member.parameter).index_fill_(member.dim, closed, 7.0)
    assert torch.allclose(logits(model, tokens), before, atol=1e-4)
    handle.remove()
    assert not torch.allclose(logits(model, tokens), before, atol=1e-2)
