"""Training on tiny models: what comes out is what was trained, and going on is as if never stopped."""

from __future__ import annotations

import errno
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from core.capture.losses import next_token_loss
from core.errors import ArtifactError, NotPrunableError, StorageError, TrainingError
from core.graph.discover import discover
from core.nuteprune import training as module
from core.nuteprune.finish import fold
from core.nuteprune.training import Report
from core.recover import losses
from core.recover.loop import rows_of_step
from core.surgery.operate import operate
from tests.graph.families import build
from tests.handmade import FAMILIES, graph_of, ids, logits, tiny
from tests.nuteprune.small import KINDS, Trainer, of_model, settings, trainer

RESIDUAL = (*KINDS, "residual_channel")


def run(loop: Trainer, until: int | None = None) -> list[Report]:
    """Train up to a step, or to the end."""
    return [loop.step() for _ in range(loop.state.step, until or loop.training.settings.steps)]


@pytest.mark.parametrize("kinds", [KINDS, RESIDUAL, ("kv_group", "ffn_channel")])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_masked_model_is_the_folded_and_sliced_one(
    family: str, kinds: tuple[str, ...], tmp_path: Path
) -> None:
    loop = trainer(tmp_path, family=family, kinds=kinds, settle=0.5, lora_rate=0.05)
    graph = graph_of(tiny(family))
    run(loop)
    tokens = ids(loop.training.twin.model)
    factors = loop.training.masks.final().detach()
    wanted = logits(loop.training.twin.act(factors), tokens)
    plain = logits(loop.training.twin.act(torch.ones_like(factors)), tokens)
    model = loop.training.twin.release()
    fold(model, graph, loop.training.gates.split(factors))
    operate(model, graph, loop.training.masks.plan.removed)
    assert (logits(model, tokens) - wanted).abs().max() < 1e-4
    assert (plain - wanted).abs().max() > 0.1  # the masks do something
    assert loop.training.masks.plan.sparsity == pytest.approx(0.3, abs=0.02)


def test_surviving_factors_are_in_the_weights(tmp_path: Path) -> None:
    loop = trainer(tmp_path, start=0.5, mask_rate=0.05)
    run(loop)
    factors = loop.training.masks.final()
    between = (factors > 0.05) & (factors < 0.95)
    assert int(between.sum()) > 0
    assert bool((factors[factors > 0] >= 0.5).all())


@pytest.mark.parametrize("distillation", ["progressive", "dense", "none", "second_model"])
def test_every_way_of_teaching_trains_masks_and_lora(distillation: str, tmp_path: Path) -> None:
    loop = trainer(tmp_path, distillation=distillation, layer_weight=0.1)
    before = {name: value.detach().clone() for name, value in loop.training.twin.updates().items()}
    weights = {
        name: value.clone() for name, value in loop.training.twin.model.state_dict().items() if "base" in name
    }
    start = loop.training.gates.log_alpha.detach().clone()
    reports = run(loop)
    assert all(report.finite and math.isfinite(report.loss) for report in reports)
    assert not torch.equal(loop.training.gates.log_alpha, start)
    assert any(not torch.equal(value, before[name]) for name, value in loop.training.twin.updates().items())
    now = loop.training.twin.model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in weights.items())
    assert (reports[0].teacher is None) == (distillation == "none")
    assert (reports[0].layer_loss or 0.0) == 0.0 or distillation != "none"


def test_a_second_model_teaches_what_the_same_weights_teach(tmp_path: Path) -> None:
    """Plain distillation needs no second model: to the last bit."""
    one = trainer(tmp_path / "one", distillation="dense")
    two = trainer(tmp_path / "two", distillation="second_model")
    assert [report.loss for report in run(one)] == [report.loss for report in run(two)]
    assert torch.equal(one.training.gates.log_alpha, two.training.gates.log_alpha)


def test_masks_only_leaves_no_lora_behind(tmp_path: Path) -> None:
    loop = trainer(tmp_path, lora_rank=0)
    names = set(dict(loop.training.twin.model.named_parameters()))
    run(loop)
    assert not loop.training.twin.updates() and names == set(dict(tiny().named_parameters()))


def test_snapshots_teach_later_students(tmp_path: Path) -> None:
    loop = trainer(tmp_path, steps=40, gap=0.04, interval=0.01, settle=0.2, start=1.0)
    reports = run(loop)
    taught = {report.teacher for report in reports}
    assert len(loop.training.bank.levels) >= 3 and len(taught) >= 3 and 0.0 in taught
    assert reports[-1].teacher == 0.0
    for report in reports[: loop.training.began]:
        assert report.teacher is not None and report.teacher <= max(0.0, report.expected)


def test_a_teacher_is_the_pruned_student_of_its_time(tmp_path: Path) -> None:
    loop = trainer(tmp_path, steps=20, interval=0.01, lora_rate=0.05)
    while not loop.training.bank.levels:
        loop.step()
    tokens, level = ids(loop.training.twin.model), loop.training.bank.levels[-1]
    with torch.no_grad():
        wanted = logits(loop.training.twin.act(loop.training.gates.cut()), tokens)
    assert int((loop.training.bank[level].factors == 0).sum()) > 0
    run(loop, loop.state.step + 3)
    loop.training.twin.seat(loop.training.bank[level])
    assert torch.allclose(
        loop.training.twin.teach(tokens, loop.training.bank[level]).logits, wanted, atol=1e-5
    )
    assert torch.equal(loop.training.twin.teach(tokens, None).logits, logits(tiny(), tokens))


@pytest.mark.parametrize("stop", [1, 4, 5, 7])
def test_going_on_from_a_checkpoint_ends_as_if_never_stopped(stop: int, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"settle": 0.4, "interval": 0.01, "start": 1.0}
    whole = trainer(tmp_path / "whole", **changes)
    run(whole)
    first = trainer(tmp_path / "parts", **changes)
    run(first, stop)
    first.save()
    run(first, min(stop + 2, 8))  # what comes after the checkpoint is lost in a crash
    again = trainer(tmp_path / "parts", **changes)
    assert again.resume() and again.state.step == stop
    run(again)
    assert again.training.masks.plan == whole.training.masks.plan
    assert torch.equal(again.training.masks.final(), whole.training.masks.final())
    updates = whole.training.twin.updates()
    assert all(torch.equal(value, updates[name]) for name, value in again.training.twin.updates().items())
    assert again.training.bank.levels == whole.training.bank.levels


def test_nothing_that_is_kept_is_a_pickle(tmp_path: Path) -> None:
    loop = trainer(tmp_path, interval=0.01)
    run(loop)
    loop.save()
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors"}


def test_a_full_disk_leaves_the_checkpoint_before_it_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = trainer(tmp_path)
    run(loop, 2)
    loop.save()
    run(loop, 4)

    def full(arrays: Any, path: Path, metadata: Any = None) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("core.files.save_file", full)
    with pytest.raises(StorageError, match="free some space"):
        loop.save()
    monkeypatch.undo()
    again = trainer(tmp_path)
    assert again.resume() and again.state.step == 2
    assert not [file for file in tmp_path.iterdir() if file.suffix == ".part"]


def test_a_damaged_checkpoint_is_said(tmp_path: Path) -> None:
    loop = trainer(tmp_path)
    loop.save()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ArtifactError, match="damaged"):
        trainer(tmp_path).resume()


def test_a_loss_that_is_no_number_is_skipped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = trainer(tmp_path, steps=30)
    run(loop, 2)
    before = loop.training.gates.log_alpha.detach().clone()
    original = losses.distillation
    monkeypatch.setattr(module, "distillation", lambda *args: original(*args) * math.nan)
    report = loop.step()
    assert not report.finite and loop.state.skipped == 1
    assert torch.equal(loop.training.gates.log_alpha, before)
    monkeypatch.undo()
    assert loop.step().finite
    monkeypatch.setattr(module, "distillation", lambda *args: original(*args) * math.nan)
    with pytest.raises(TrainingError, match="20 steps in a row"):
        run(loop)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_short_run_that_learned_nothing_does_not_end_well(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, original = trainer(tmp_path, steps=steps), losses.distillation
    monkeypatch.setattr(module, "distillation", lambda *args: original(*args) * math.nan)
    with pytest.raises(TrainingError, match=f"not finite in {steps} steps in a row"):
        run(loop)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_shortest_runs_meet_the_target(steps: int, tmp_path: Path) -> None:
    loop = trainer(tmp_path, steps=steps)
    run(loop)
    assert loop.training.masks.plan.sparsity == pytest.approx(0.3, abs=0.02)


def test_without_settling_the_plan_is_that_of_the_last_step(tmp_path: Path) -> None:
    loop = trainer(tmp_path, settle=0.0)
    run(loop)
    assert (
        loop.training.masks.plan.removed == loop.training.masks.cut().removed
        and loop.training.masks.plan.sparsity == pytest.approx(0.3, abs=0.02)
    )


def test_a_target_out_of_reach_is_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(NotPrunableError, match="can go"):
        trainer(tmp_path, sparsity=0.99)


def test_parts_of_a_batch_add_up_to_the_batch(tmp_path: Path) -> None:
    one, two = (trainer(tmp_path / str(n), accumulate=n, distillation="dense") for n in (1, 2))
    assert one.step().loss == pytest.approx(two.step().loss, rel=1e-4)
    # The parts share their factors, so the masks move the same way.
    assert torch.allclose(one.training.gates.log_alpha, two.training.gates.log_alpha, atol=1e-3)


@pytest.mark.parametrize("steps", [25, 60])
def test_expected_sparsity_comes_to_the_target(steps: int, tmp_path: Path) -> None:
    loop = trainer(tmp_path, steps=steps, settle=0.2, start=1.0, distillation="dense")
    reports = run(loop)
    last = reports[loop.training.settings.settle_step - 1]
    assert last.expected == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("family", ["gpt2", "phi3", "bloom", "gemma3", "olmo2", "mixtral", "nemotron"])
def test_families_of_all_kinds_come_out_as_they_were_trained(family: str, tmp_path: Path) -> None:
    """Fused and sideways matrices, norms across heads, norms with a mean, experts: loop, not coded."""
    model = build(family)
    graph = discover(model, name=family)
    loop = of_model(
        model, graph, settings(steps=4, settle=0.5, start=1.0, lora_rate=0.05), tmp_path, RESIDUAL
    )
    run(loop)
    tokens, factors = ids(model), loop.training.masks.final().detach()
    wanted = logits(loop.training.twin.act(factors), tokens)
    small = loop.training.twin.release()
    fold(small, graph, loop.training.gates.split(factors))
    operate(small, graph, loop.training.masks.plan.removed)
    assert (logits(small, tokens) - wanted).abs().max() < 1e-4


def test_magnitude_keeps_its_order_and_trains_lora_alone(tmp_path: Path) -> None:
    loop = trainer(tmp_path, rule="magnitude", kinds=("ffn_channel",))
    with torch.no_grad():
        loop.training.gates.log_alpha.copy_(torch.linspace(1.0, -1.0, len(loop.training.gates.log_alpha)))
    start = loop.training.gates.log_alpha.detach().clone()
    reports = run(loop)
    assert torch.equal(loop.training.gates.log_alpha, start)
    assert set(loop.training.masks.plan.removed) == {"L01.ffn_channel"}  # the lowest of all, in one list
    assert [report.actual for report in reports] == sorted(report.actual for report in reports)


def test_movement_lowers_units_that_the_loss_would_rather_lose(tmp_path: Path) -> None:
    """A score falls by the loss's derivative in the unit's mask, open or not: plain descent for one step."""
    loop = trainer(tmp_path, rule="movement", distillation="none", lora_rank=0, steps=4, settle=0.0)
    loop.training.optimizer = torch.optim.SGD(
        [{"params": [loop.training.gates.log_alpha], "lr": 0.5}, {"params": [], "lr": 0.0}]
    )
    start = loop.training.gates.log_alpha.detach().clone()
    loop.training.masks.aim(0)
    stays = loop.training.masks.certain()
    factors = stays.clone().requires_grad_()
    rows = rows_of_step(6, 2, 0, 0)
    next_token_loss(loop.training.twin.act(factors), loop.training.windows[rows])[0].backward()
    loop.step()
    assert factors.grad is not None and bool((factors.grad[stays == 0] != 0).any())
    assert torch.allclose(loop.training.gates.log_alpha, start - 0.5 * factors.grad, atol=1e-6)


@pytest.mark.parametrize("rule", ["magnitude", "movement", "lora_gradient"])
def test_baselines_end_at_the_target_and_go_on_as_well(rule: str, tmp_path: Path) -> None:
    whole, parts = (trainer(tmp_path / name, rule=rule) for name in ("whole", "parts"))
    run(whole)
    run(parts, 6)
    parts.save()
    again = trainer(tmp_path / "parts", rule=rule)
    assert again.resume()
    run(again)
    assert again.training.masks.plan == whole.training.masks.plan
    assert whole.training.masks.plan.sparsity == pytest.approx(0.3, abs=0.02)
