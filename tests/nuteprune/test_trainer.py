"""Training on tiny models: what comes out is what was trained, and going on is as if never stopped."""

from __future__ import annotations

import errno
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from core.capture.statistics import next_token_loss
from core.errors import ArtifactError, NotPrunableError, StorageError, TrainingError
from core.graph.discover import discover
from core.nuteprune import losses
from core.nuteprune import trainer as module
from core.nuteprune.finish import fold
from core.nuteprune.randomness import rows_of_step
from core.nuteprune.trainer import Report, Trainer
from core.surgery.operate import operate
from tests.graph.families import build
from tests.handmade import FAMILIES, graph_of, ids, logits, tiny
from tests.nuteprune.small import KINDS, of_model, settings, trainer

RESIDUAL = (*KINDS, "residual_channel")


def run(found: Trainer, until: int | None = None) -> list[Report]:
    """Train up to a step, or to the end."""
    return [found.step() for _ in range(found.state.step, until or found.settings.steps)]


@pytest.mark.parametrize("kinds", [KINDS, RESIDUAL, ("kv_group", "ffn_channel")])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_masked_model_is_the_folded_and_sliced_one(
    family: str, kinds: tuple[str, ...], tmp_path: Path
) -> None:
    found = trainer(tmp_path, family=family, kinds=kinds, settle=0.5, lora_rate=0.05)
    graph = graph_of(tiny(family))
    run(found)
    tokens = ids(found.twin.model)
    factors = found.masks.final().detach()
    wanted = logits(found.twin.act(factors), tokens)
    plain = logits(found.twin.act(torch.ones_like(factors)), tokens)
    model = found.twin.release()
    fold(model, graph, found.gates.split(factors))
    operate(model, graph, found.masks.plan.removed)
    assert (logits(model, tokens) - wanted).abs().max() < 1e-4
    assert (plain - wanted).abs().max() > 0.1  # the masks do something
    assert found.masks.plan.sparsity == pytest.approx(0.3, abs=0.02)


def test_surviving_factors_are_in_the_weights(tmp_path: Path) -> None:
    found = trainer(tmp_path, start=0.5, mask_rate=0.05)
    run(found)
    factors = found.masks.final()
    between = (factors > 0.05) & (factors < 0.95)
    assert int(between.sum()) > 0
    assert bool((factors[factors > 0] >= 0.5).all())


@pytest.mark.parametrize("distillation", ["progressive", "dense", "none", "second_model"])
def test_every_way_of_teaching_trains_masks_and_lora(distillation: str, tmp_path: Path) -> None:
    found = trainer(tmp_path, distillation=distillation, layer_weight=0.1)
    before = {name: value.detach().clone() for name, value in found.twin.updates().items()}
    weights = {name: value.clone() for name, value in found.twin.model.state_dict().items() if "base" in name}
    start = found.gates.log_alpha.detach().clone()
    reports = run(found)
    assert all(report.finite and math.isfinite(report.loss) for report in reports)
    assert not torch.equal(found.gates.log_alpha, start)
    assert any(not torch.equal(value, before[name]) for name, value in found.twin.updates().items())
    now = found.twin.model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in weights.items())
    assert (reports[0].teacher is None) == (distillation == "none")
    assert (reports[0].layer or 0.0) == 0.0 or distillation != "none"


def test_a_second_model_teaches_what_the_same_weights_teach(tmp_path: Path) -> None:
    """Plain distillation needs no second model: to the last bit."""
    one = trainer(tmp_path / "one", distillation="dense")
    two = trainer(tmp_path / "two", distillation="second_model")
    assert [report.loss for report in run(one)] == [report.loss for report in run(two)]
    assert torch.equal(one.gates.log_alpha, two.gates.log_alpha)


def test_masks_only_leaves_no_lora_behind(tmp_path: Path) -> None:
    found = trainer(tmp_path, lora_rank=0)
    names = set(dict(found.twin.model.named_parameters()))
    run(found)
    assert not found.twin.updates() and names == set(dict(tiny().named_parameters()))


def test_snapshots_teach_later_students(tmp_path: Path) -> None:
    found = trainer(tmp_path, steps=40, gap=0.04, interval=0.01, settle=0.2, start=1.0)
    reports = run(found)
    taught = {report.teacher for report in reports}
    assert len(found.bank.levels) >= 3 and len(taught) >= 3 and 0.0 in taught
    assert reports[-1].teacher == 0.0
    for report in reports[: found.state.began]:
        assert report.teacher is not None and report.teacher <= max(0.0, report.expected)


def test_a_teacher_is_the_student_of_its_time(tmp_path: Path) -> None:
    found = trainer(tmp_path, steps=20, interval=0.01, lora_rate=0.05)
    while not found.bank.levels:
        found.step()
    tokens, level = ids(found.twin.model), found.bank.levels[-1]
    with torch.no_grad():
        wanted = logits(found.twin.act(found.gates.median()), tokens)
    run(found, found.state.step + 3)
    found.twin.seat(found.bank[level])
    assert torch.allclose(found.twin.teach(tokens, found.bank[level]).logits, wanted, atol=1e-5)
    assert torch.equal(found.twin.teach(tokens, None).logits, logits(tiny(), tokens))


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
    assert again.masks.plan == whole.masks.plan
    assert torch.equal(again.masks.final(), whole.masks.final())
    updates = whole.twin.updates()
    assert all(torch.equal(value, updates[name]) for name, value in again.twin.updates().items())
    assert again.bank.levels == whole.bank.levels


def test_nothing_that_is_kept_is_a_pickle(tmp_path: Path) -> None:
    found = trainer(tmp_path, interval=0.01)
    run(found)
    found.save()
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors"}


def test_a_full_disk_leaves_the_checkpoint_before_it_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trainer(tmp_path)
    run(found, 2)
    found.save()
    run(found, 4)

    def full(arrays: Any, path: Path, metadata: Any = None) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("core.files.save_file", full)
    with pytest.raises(StorageError, match="free some space"):
        found.save()
    monkeypatch.undo()
    again = trainer(tmp_path)
    assert again.resume() and again.state.step == 2
    assert not [file for file in tmp_path.iterdir() if file.suffix == ".part"]


def test_a_damaged_checkpoint_is_said(tmp_path: Path) -> None:
    found = trainer(tmp_path)
    found.save()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ArtifactError, match="damaged"):
        trainer(tmp_path).resume()


def test_a_loss_that_is_no_number_is_skipped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trainer(tmp_path, steps=30)
    run(found, 2)
    before = found.gates.log_alpha.detach().clone()
    original = losses.distillation
    monkeypatch.setattr(module, "distillation", lambda *args: original(*args) * math.nan)
    report = found.step()
    assert not report.finite and found.state.skipped == 1
    assert torch.equal(found.gates.log_alpha, before)
    monkeypatch.undo()
    assert found.step().finite
    monkeypatch.setattr(module, "distillation", lambda *args: original(*args) * math.nan)
    with pytest.raises(TrainingError, match="20 steps in a row"):
        run(found)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_short_run_that_learned_nothing_does_not_end_well(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, original = trainer(tmp_path, steps=steps), losses.distillation
    monkeypatch.setattr(module, "distillation", lambda *args: original(*args) * math.nan)
    with pytest.raises(TrainingError, match=f"not finite in {steps} steps in a row"):
        run(found)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_shortest_runs_meet_the_target(steps: int, tmp_path: Path) -> None:
    found = trainer(tmp_path, steps=steps)
    run(found)
    assert found.masks.plan.sparsity == pytest.approx(0.3, abs=0.02)


def test_without_settling_the_plan_is_that_of_the_last_step(tmp_path: Path) -> None:
    found = trainer(tmp_path, settle=0.0)
    run(found)
    assert (
        found.masks.plan.removed == found.masks.cut().removed
        and found.masks.plan.sparsity == pytest.approx(0.3, abs=0.02)
    )


def test_a_target_out_of_reach_is_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(NotPrunableError, match="can go"):
        trainer(tmp_path, sparsity=0.99)


def test_parts_of_a_batch_add_up_to_the_batch(tmp_path: Path) -> None:
    one, two = (trainer(tmp_path / str(n), accumulate=n, distillation="dense") for n in (1, 2))
    assert one.step().loss == pytest.approx(two.step().loss, rel=1e-4)
    # The parts share their factors, so the masks move the same way.
    assert torch.allclose(one.gates.log_alpha, two.gates.log_alpha, atol=1e-3)


@pytest.mark.parametrize("steps", [25, 60])
def test_expected_sparsity_comes_to_the_target(steps: int, tmp_path: Path) -> None:
    found = trainer(tmp_path, steps=steps, settle=0.2, start=1.0, distillation="dense")
    reports = run(found)
    last = reports[found.settings.settle_step - 1]
    assert last.expected == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("family", ["gpt2", "phi3", "bloom", "gemma3", "olmo2", "mixtral", "nemotron"])
def test_families_of_all_kinds_come_out_as_they_were_trained(family: str, tmp_path: Path) -> None:
    """Fused and sideways matrices, norms across heads, norms with a mean, experts: found, not coded."""
    model = build(family)
    graph = discover(model, name=family)
    found = of_model(
        model, graph, settings(steps=4, settle=0.5, start=1.0, lora_rate=0.05), tmp_path, RESIDUAL
    )
    run(found)
    tokens, factors = ids(model), found.masks.final().detach()
    wanted = logits(found.twin.act(factors), tokens)
    small = found.twin.release()
    fold(small, graph, found.gates.split(factors))
    operate(small, graph, found.masks.plan.removed)
    assert (logits(small, tokens) - wanted).abs().max() < 1e-4


def test_magnitude_keeps_its_order_and_trains_lora_alone(tmp_path: Path) -> None:
    found = trainer(tmp_path, rule="magnitude", kinds=("ffn_channel",))
    with torch.no_grad():
        found.gates.log_alpha.copy_(torch.linspace(1.0, -1.0, len(found.gates.log_alpha)))
    start = found.gates.log_alpha.detach().clone()
    reports = run(found)
    assert torch.equal(found.gates.log_alpha, start)
    assert set(found.masks.plan.removed) == {"L01.ffn_channel"}  # the lowest of all, in one list
    assert [report.actual for report in reports] == sorted(report.actual for report in reports)


def test_movement_lowers_units_that_the_loss_would_rather_lose(tmp_path: Path) -> None:
    """A score falls by the loss's derivative in the unit's mask, open or not: plain descent for one step."""
    found = trainer(tmp_path, rule="movement", distillation="none", lora_rank=0, steps=4, settle=0.0)
    found.optimizer = torch.optim.SGD(  # type: ignore[assignment]
        [{"params": [found.gates.log_alpha], "lr": 0.5}, {"params": [], "lr": 0.0}]
    )
    start = found.gates.log_alpha.detach().clone()
    found.masks.aim(0)
    stays = found.masks.certain()
    factors = stays.clone().requires_grad_()
    rows = rows_of_step(6, 2, 0, 0)
    next_token_loss(found.twin.act(factors), found.windows[rows])[0].backward()
    found.step()
    assert factors.grad is not None and bool((factors.grad[stays == 0] != 0).any())
    assert torch.allclose(found.gates.log_alpha, start - 0.5 * factors.grad, atol=1e-6)


@pytest.mark.parametrize("rule", ["magnitude", "movement", "lora_gradient"])
def test_baselines_end_at_the_target_and_go_on_as_well(rule: str, tmp_path: Path) -> None:
    whole, parts = (trainer(tmp_path / name, rule=rule) for name in ("whole", "parts"))
    run(whole)
    run(parts, 6)
    parts.save()
    again = trainer(tmp_path / "parts", rule=rule)
    assert again.resume()
    run(again)
    assert again.masks.plan == whole.masks.plan
    assert whole.masks.plan.sparsity == pytest.approx(0.3, abs=0.02)
