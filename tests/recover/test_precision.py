"""In which precision a training multiplies: chosen by the hardware, and as good as float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.devices.picked import multiplied_in
from core.recover.train import Recovery
from tests.recover.test_train import ASKED, RANDOM, Killed, data, pruned, recover, trained

ROUNDED = replace(ASKED, precision="bf16", dropout=0.0)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("amx", "avx512", "precision"), [(True, False, "bf16"), (False, True, "bf16"), (False, False, "no")]
)
def test_the_hardware_decides_unless_somebody_does(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert multiplied_in("auto", CPU) == precision
    assert [multiplied_in(asked, CPU) for asked in ("no", "bf16")] == ["no", "bf16"]
    assert multiplied_in("auto", torch.device("meta")) == "no"


@pytest.mark.parametrize("targets", ["all", "weights"])
def test_products_are_in_bfloat16_and_what_is_learned_and_the_loss_in_float32(
    tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, targets: str
) -> None:
    products, losses, original = set[torch.dtype](), set[torch.dtype](), Recovery.loss

    def loss(training: Recovery, rows: list[int]) -> Any:
        with_gradients.append(training)
        value, measured = original(training, rows)
        losses.add(value.dtype)
        with_gradients.clear()
        return value, measured

    def note(module: nn.Module, given: Any, out: Tensor) -> None:
        if with_gradients:
            products.add(out.dtype)

    with_gradients: list[Recovery] = []
    loaded, graph = pruned(tiny_tokenizer)
    for module in loaded.model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(note)
    monkeypatch.setattr(Recovery, "loss", loss)
    method = "distill" if targets == "weights" else "lora"
    asked = replace(ROUNDED, method=method, targets=targets, learning_rate=1e-2)
    outcome = recover(loaded, graph, data(), asked, tmp_path)
    assert torch.float32 in losses and losses == {torch.float32}
    assert torch.bfloat16 in products
    assert {value.dtype for value in loaded.model.parameters()} == {torch.float32}
    assert outcome.held_ppl_after < outcome.held_ppl_before / 2


def test_the_loss_falls_as_in_float32(tmp_path: Path, tiny_tokenizer: Any) -> None:
    curves: dict[str, list[float]] = {}
    for precision in ("no", "bf16"):

        def told(name: str, step: int, value: float, curve: str = precision) -> None:
            if name == "recover.loss":
                curves.setdefault(curve, []).append(value)

        asked = replace(ROUNDED, precision=precision, learning_rate=1e-2)
        trained(tiny_tokenizer, tmp_path / precision, asked, on_curve=told)
    assert curves["bf16"] != curves["no"] and curves["no"][-1] < curves["no"][0] - 0.5
    assert curves["bf16"] == pytest.approx(curves["no"], rel=0.02)


def test_killed_and_resumed_ends_the_same(tmp_path: Path, tiny_tokenizer: Any) -> None:
    def kill(done: int, total: int) -> None:
        if done == 8:
            raise Killed

    asked = replace(RANDOM, precision="bf16")
    whole, expected = trained(tiny_tokenizer, tmp_path / "whole", asked)
    with pytest.raises(Killed):
        trained(tiny_tokenizer, tmp_path / "killed", asked, on_progress=kill)
    again, outcome = trained(tiny_tokenizer, tmp_path / "killed", asked)
    assert outcome == expected and all(torch.equal(whole[name], again[name]) for name in whole)
