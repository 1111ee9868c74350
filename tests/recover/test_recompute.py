"""A layer that is computed again on the way back teaches the same, and keeps less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core.graph.discover import discover
from core.recover.recompute import recomputing
from tests.handmade import ids, tiny
from tests.nuteprune.small import trainer


def learned(folder: Path, **changes: Any) -> dict[str, torch.Tensor]:
    loop = trainer(folder, batch=4, **changes)
    for _ in range(3):
        loop.step()
    return {name: value.detach().clone() for name, value in loop.training.tensors().items()}


@pytest.mark.parametrize("distillation", ["progressive", "none"])
def test_masks_and_lora_learn_the_same(tmp_path: Path, distillation: str) -> None:
    asked = {"layer_weight": 0.1, "distillation": distillation, "start": 1.0}
    plain = learned(tmp_path / "plain", **asked)
    again = learned(tmp_path / "again", **asked, gradient_checkpointing="on")
    assert plain.keys() == again.keys()
    for name, value in plain.items():
        assert torch.allclose(value, again[name], atol=1e-6), name


@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_the_same_and_less_is_kept(training: bool) -> None:
    def gradients(forgetful: bool) -> tuple[list[torch.Tensor], int]:
        model, kept = tiny(attention_dropout=0.3), dict[int, int]()
        layers = [model.get_submodule(name) for name in discover(model, name="tiny").layer_modules]
        model.train(training)

        def note(value: torch.Tensor) -> torch.Tensor:
            kept[id(value)] = value.nbytes
            return value

        torch.manual_seed(0)
        tokens = ids(model, batch=2)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
            with recomputing(layers if forgetful else []):
                loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
            count = sum(kept.values())
        loss.backward()
        return [value.grad for value in model.parameters()], count

    (plain, whole), (again, less) = gradients(False), gradients(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert less < whole / 2
