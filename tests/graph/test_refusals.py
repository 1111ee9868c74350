"""Models that cannot be followed say where and why; nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig

from core.errors import ModelError, NotPrunableError
from core.graph.discover import discover, discover_config
from core.graph.records import Graph
from tests.graph.families import build
from tests.graph.packed import PackedConfig, PackedForCausalLM


class Branching(nn.Module):
    """Looks at the numbers in a tensor to decide what to do."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden * 2 if hidden.sum() > 0 else hidden


class Between(nn.Module):
    """Puts an operation between the FFN channels and the matrix that reads them."""

    def __init__(self, inner: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, hidden: Tensor) -> Tensor:
        return self.inner(self.change(hidden))


def with_ffn(change: Callable[[Tensor], Tensor]) -> Graph:
    model = PackedForCausalLM(PackedConfig())
    model.layers[0].down_proj = Between(model.layers[0].down_proj, change)
    return discover(model, name="changed")


def test_control_flow_on_data_names_operation_and_module() -> None:
    model = build("llama")
    model.model.layers[1].mlp.act_fn = Branching()
    with pytest.raises(NotPrunableError) as caught:
        discover(model, name="branching")
    message = str(caught.value)
    assert "'model.layers.1.mlp.act_fn' (Branching)" in message
    assert "aten." in message and "numbers in a tensor" in message


def test_a_plain_mistake_in_a_model_is_told_as_it_is() -> None:
    model = PackedForCausalLM(PackedConfig())
    model.layers[1].down_proj = nn.Linear(3, 48)
    with pytest.raises(NotPrunableError, match=r"'layers\.1\.down_proj' \(Linear\), operation aten\."):
        discover(model, name="broken")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x.softmax(-1), "softmax runs across"),
        (lambda x: x * torch.arange(40.0, device=x.device), "fixed numbers"),
        (lambda x: x - x.mean(-1, keepdim=True), "takes the mean"),
        (lambda x: x @ torch.ones(40, 40, device=x.device), "with fixed numbers"),
        (lambda x: torch.fft.rfft(x).real.repeat(1, 1, 2)[..., :40], "cannot be followed"),
        (lambda x: x.unflatten(-1, (5, 8)).transpose(-1, -2).cumsum(-1).flatten(-2), "cannot be followed"),
        (lambda x: x.unflatten(-1, (5, 8)).relu().flatten(-2), "no room for gaps"),
        (lambda x: x + torch.roll(x, 1, -1), None),
    ],
)
def test_ffn_channels_that_cannot_go_alone_are_refused(
    change: Callable[[Tensor], Tensor], reason: str | None
) -> None:
    graph = with_ffn(change)
    reasons = [r["reason"] for r in graph.not_prunable if r["layer"] == 0]
    assert not [g for g in graph.of_kind("ffn_channel") if g.layer == 0 and g.prunable and g.units > 1]
    if reason is not None:
        assert any(reason in text for text in reasons), reasons
    assert graph.group("L01.ffn_channel").prunable


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x * 3,
        lambda x: x.flip(-1).flip(-1),
        lambda x: torch.cat([x[..., :7], x[..., 7:]], -1),
        lambda x: nn.functional.normalize(x, dim=-1),
        lambda x: x * x.sum(-1, keepdim=True),
    ],
)
def test_ffn_channels_that_can_go_alone_are_offered(change: Callable[[Tensor], Tensor]) -> None:
    graph = with_ffn(change)
    assert graph.group("L00.ffn_channel").prunable
    assert graph.group("L00.ffn_channel").units == 40


def test_a_norm_across_ffn_channels_is_told() -> None:
    graph = with_ffn(lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
    group = graph.group("L00.ffn_channel")
    assert [(norm.module, norm.statistic) for norm in group.norms] == [("layers.0.down_proj", "rms")]


def test_slopes_per_head_are_told() -> None:
    graph = discover(build("bloom"), name="bloom")
    assert graph.group("L01.query_head").constants == ("transformer.h.1.self_attention",)
    assert graph.group("L01.ffn_channel").constants == ()


@pytest.mark.parametrize("model_type", ["t5", "bart", "bert", "roberta", "whisper"])
def test_encoders_and_sequence_to_sequence_models_are_refused(model_type: str) -> None:
    with pytest.raises(ModelError, match="decoder-only"):
        discover_config(AutoConfig.for_model(model_type), name=model_type)


def test_a_config_without_language_model_is_refused() -> None:
    with pytest.raises(ModelError, match="No decoder can be built"):
        discover_config(AutoConfig.for_model("vit"), name="vit")


def test_a_recurrent_mixer_offers_its_ffn_and_says_what_it_lacks() -> None:
    settings = {
        "vocab_size": 61,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "state_size": 4,
        "pad_token_id": 0,
    }
    graph = discover_config(AutoConfig.for_model("mamba", **settings), name="mamba")
    assert not [group for group in graph.of_kind("ffn_channel") if group.prunable]
    assert any("aten.convolution" in refusal["reason"] for refusal in graph.not_prunable)
