"""What is ours in the training: layers by their variance, and an end where nothing more is gained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.errors import SpecError
from core.nuteprune import training as module
from core.nuteprune.training import Judged
from core.recover.loop import rows_of_step
from core.spec.nuteprune import check
from tests.nuteprune.small import settings, trainer
from tests.nuteprune.test_training import RESIDUAL


@pytest.mark.parametrize("way", ["paper", "relative"])
def test_the_layer_loss_is_the_one_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Written out in float64, of hidden channels of which some are closed."""
    seen: list[tuple[list[Tensor], list[Tensor]]] = []

    def noted(name: str) -> Any:
        real = getattr(module, name)

        def call(ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
            seen.append(([each.detach().double() for each in ours], [each.double() for each in theirs]))
            return real(ours, theirs)

        return call

    for name in ("layer_loss", "relative_layer_loss"):
        monkeypatch.setattr(module, name, noted(name))
    loop = trainer(tmp_path, kinds=RESIDUAL, layer_weight=0.5, layer_loss=way, start=0.0, accumulate=1)
    report = loop.step()
    ((ours, theirs),) = seen
    shares = []
    for student, teacher in zip(ours, theirs, strict=True):
        left = student != 0
        assert int((~left).sum()) > 0
        size = (teacher[left] - teacher[left].mean()).square().mean() if way == "relative" else 1.0
        shares.append(float((student[left] - teacher[left]).square().mean() / size))
    wanted = sum(shares) / (len(shares) if way == "relative" else 1)
    assert report.layer_loss == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("way", ["dense", "second_model"])
def test_the_next_token_counts_beside_the_divergence(tmp_path: Path, way: str) -> None:
    """Its weight times the mean of every next token's loss is what it adds."""
    loops = {
        weight: trainer(tmp_path / str(weight), distillation=way, next_token=weight, accumulate=1)
        for weight in (0.0, 0.5)
    }
    alone, both = (loop.step().loss for loop in loops.values())
    training = trainer(tmp_path / "own").training
    rows = rows_of_step(6, 2, 0, 0)
    training.begin(0, rows)
    read = training.windows[rows]
    with torch.no_grad():
        logits = training.twin.act(training.masks.factors())(input_ids=read).logits.double()
    own = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), read[:, 1:].flatten())
    assert both - alone == pytest.approx(0.5 * float(own), rel=1e-5)


def test_steps_after_which_nothing_is_gained_are_not_made(tmp_path: Path) -> None:
    """Only what is measured once the plan is fixed counts, and a checkpoint remembers it."""
    loop = trainer(tmp_path, steps=20, settle=0.5, measure_every=2, patience=2, checkpoint_every=100)
    for step, ppl in ((4, 1.0), (8, 1.0), (10, 5.0), (12, 4.0), (14, 6.0)):
        loop.training.judge(step, ppl)
        assert not loop.training.over
    assert loop.training._judged == Judged(4.0, 12, 14)

    def told(report: Any) -> None:
        if loop.state.step == 16:
            loop.training.judge(16, 4.0)

    loop.run(told, lambda done, total: None)
    assert loop.training.over and loop.state.step == 16
    again = trainer(tmp_path, steps=20, settle=0.5, measure_every=2, patience=2, checkpoint_every=100)
    assert again.resume() and again.training.over and again.state.step == 16
    again.run(lambda report: pytest.fail("a step was made"), lambda done, total: None)


def test_patience_where_it_cannot_count_is_refused() -> None:
    with pytest.raises(SpecError, match=r"settle=0\.4"):
        check(settings(patience=3, settle=0.0), 0.3)
    check(settings(patience=3), 0.3)
