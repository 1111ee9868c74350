"""NutePrune as stages of a run: training, told as it happens, then the plan and the folded weights."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.graph.records import Graph
from core.models.load import Loaded
from core.models.texts import calibration_windows
from core.nuteprune import checkpoint
from core.nuteprune.finish import fold
from core.nuteprune.gates import Gates
from core.nuteprune.start import starting_point
from core.nuteprune.team import Team, devices
from core.nuteprune.trainer import Trainer
from core.nuteprune.twin import Twin
from core.plan.allocation import groups_in_scope
from core.plan.records import PruningPlan
from core.runs.artifacts import CHECKPOINT
from core.spec.nuteprune import Settings
from core.spec.run import RunSpec
from core.stages import leading
from core.stages import steps as stages
from core.stages.nuteprune_progress import run
from core.stages.work import Work

#: Below the run's checkpoints.
FOLDER = "nuteprune"


def learn(
    work: Work, loaded: Loaded, graph: Graph, settings: Settings, scores: Mapping[str, Any] | None
) -> tuple[PruningPlan, Loaded]:
    """Train, then write down the plan.

    Args:
        scores: group id -> scores that order the units at the start, (units,), or None.

    Returns:
        The plan, and the model with what was learned in its weights, not yet cut.
    """
    return finish(work, loaded, graph, train(work, loaded, graph, settings, scores))


def check_device(settings: Settings, device: torch.device) -> None:
    """Raises SpecError where not so many processes can train, the first on this device."""
    devices(device, settings.processes)


def forget(run_dir: Path) -> None:
    """Remove the checkpoint and the teachers of a training whose result is saved."""
    shutil.rmtree(run_dir / CHECKPOINT / FOLDER, ignore_errors=True)


def train(
    work: Work, loaded: Loaded, graph: Graph, settings: Settings, scores: Mapping[str, Any] | None
) -> Trainer:
    """Train masks and LoRA, from the checkpoint if there is one.

    Args:
        scores: group id -> scores that order the units at the start, (units,), or None.

    Raises:
        NotPrunableError, TrainingError, StorageError; StopRequested after a whole step, which is saved.
        SpecError, LaunchError: several processes cannot train here, or one of them is gone.
    """
    recorder = work.recorder
    recorder.stage("train")
    windows, held = _windows(work, loaded, settings)
    with leading.team(work.run_dir, loaded.device, settings, recorder.check_stop) as team:
        trainer = trainer_of(work.spec, work.run_dir, loaded, graph, settings, windows, team, scores)
        if trainer.resume():
            recorder.message(f"Training goes on after step {trainer.state.step} of {settings.steps}")
        if team.followers:
            recorder.message(f"{settings.processes} processes train together")
            trainer.save()
            checkpoint.save_windows(trainer.folder, windows)
            team.wait()
        run(recorder, trainer, held)
    return trainer


def trainer_of(
    spec: RunSpec,
    run_dir: Path,
    loaded: Loaded,
    graph: Graph,
    settings: Settings,
    windows: Tensor,
    team: Team,
    scores: Mapping[str, Any] | None,
) -> Trainer:
    """The training as it starts, with every random choice made by the seed. Raises NotPrunableError."""
    asked = spec.prune
    groups = groups_in_scope(graph, asked.kinds, asked.layers)
    second = copy.deepcopy(loaded.model) if settings.distillation == "second_model" else None
    gates = Gates(groups, starting_point(groups, settings, scores))
    torch.manual_seed(spec.seed)  # LoRA starts the same, whatever was done or kept before
    twin = Twin(
        loaded.model, graph, gates.to(loaded.device),
        rank=settings.lora_rank, alpha=settings.lora_alpha, targets=settings.lora_targets,
    )  # fmt: skip
    return Trainer(
        twin, gates, graph, groups, windows, settings, team,
        allocation=asked.allocation(), seed=spec.seed, second=second, folder=folder_of(run_dir),
    )  # fmt: skip


def folder_of(run_dir: Path) -> Path:
    """Where a training keeps what it goes on from."""
    return run_dir / CHECKPOINT / FOLDER


def finish(work: Work, loaded: Loaded, graph: Graph, trainer: Trainer) -> tuple[PruningPlan, Loaded]:
    """The plan at the target, written down, and the model with LoRA and surviving masks in its weights."""
    work.recorder.stage("plan")
    plan = replace(trainer.masks.plan, model=graph.model, method=work.spec.prune.method)
    stages.keep_plan(work, graph, plan)
    factors = trainer.gates.split(trainer.masks.final().detach())
    model = trainer.twin.release()
    fold(model, graph, factors)
    return plan, replace(loaded, model=model)


def _windows(work: Work, loaded: Loaded, settings: Settings) -> tuple[Tensor, Tensor]:
    """Windows to train on and windows kept apart, of the calibration text; each (windows, length)."""
    data = work.spec.calibration
    found, _ = calibration_windows(
        loaded.model,
        loaded.tokenizer,
        data.name,
        samples=data.samples + settings.held,
        length=data.length,
        seed=work.spec.seed,
    )
    return found[: data.samples], found[data.samples :]
