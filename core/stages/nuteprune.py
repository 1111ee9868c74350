"""NutePrune as stages of a run: training, told as it happens, then the plan and the folded weights."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.files import load_arrays, save_arrays
from core.graph.records import Graph
from core.methods import method_of
from core.models.load import Loaded
from core.models.windows import calibration_windows
from core.nuteprune.finish import fold
from core.nuteprune.gates import Gates
from core.nuteprune.start import starting_point
from core.nuteprune.training import MaskTraining
from core.nuteprune.twin import Twin
from core.plan.allocation import groups_in_scope
from core.plan.records import PruningPlan
from core.recover.loop import Loop
from core.recover.shards import Shards
from core.recover.team import Team
from core.results.scores import ranked_by
from core.runs import company
from core.runs.artifacts import CHECKPOINT, read_graph
from core.spec.nuteprune import Settings
from core.stages import steps as stages
from core.stages import together
from core.stages.measure import dense_to_time, watched
from core.stages.needs import fitted_settings
from core.stages.nuteprune_progress import run
from core.stages.work import State, Work, reading

#: Group id -> scores of its units, (units,).
Scores = Mapping[str, NDArray[np.floating]]
#: Below the run's checkpoints.
FOLDER = "nuteprune"
_WINDOWS = "windows.safetensors"


def learn(state: State) -> None:
    """Train the masks, from the scores that order the units at the start if the method asks for some."""
    request, method = state.work.spec.prune, method_of(state.work.spec)
    assert method is not None, "a method that trains is what asks for this stage"
    settings, first = fitted_settings(state.work.run_dir), method.component.start_from(request.options)
    scores = state.scores[ranked_by(first, settings.start_scope)] if first else None
    state.training = _train(state.work, state.loaded, state.graph, settings, scores)


def plan(state: State) -> None:
    """Write down the plan, and leave what was learned in the weights of a model that is not yet cut."""
    state.plan, state.loaded = _finish(state.work, state.loaded, state.graph, state.training)
    del state.training
    state.dense = dense_to_time(state)


def forget(run_dir: Path) -> None:
    """Remove the checkpoint and the teachers of a training whose result is saved."""
    shutil.rmtree(_folder(run_dir), ignore_errors=True)


def _train(
    work: Work, loaded: Loaded, graph: Graph, settings: Settings, scores: Scores | None
) -> MaskTraining:
    """Train masks and LoRA, from the checkpoint if there is one.

    Raises:
        NotPrunableError, TrainingError, StorageError; StopRequested after a whole step, which is saved.
        SpecError, LaunchError: several processes cannot train here, or one of them is gone.
    """
    windows, held = _windows(work, loaded, settings)
    if company.size() > 1:
        save_arrays(_folder(work.run_dir) / _WINDOWS, {"windows": windows.numpy()}, {})
    sharded = settings.shard_weights == "on"
    with together.team(work, FOLDER, loaded, settings.precision, sharded=sharded) as team:
        training = _training(work, loaded, graph, settings, windows, scores)
        shards = together.shards(work, team, training.frozen() if sharded else [], loaded.device)
        loop = Loop(training, team, _checkpoint(work.run_dir), shards)
        loop.resume()
        run(work.recorder, loop, training, held, watched(work.spec, loaded.tokenizer))
        loop.shards.gather()
    return training


def train_along(work: Work, loaded: Loaded, settings: Settings, team: Team) -> None:
    """Take part in a training that another process leads, from what it has written down.

    Raises:
        LostTouchError: that one, or another, is gone.
    """
    graph, windows = read_graph(work.run_dir), _load_windows(work.run_dir)
    training = _training(work, loaded, graph, settings, windows, None, leads=False)
    models = training.frozen() if settings.shard_weights == "on" else []
    loop = Loop(training, team, _checkpoint(work.run_dir), Shards(team, models, loaded.device))
    loop.resume()
    loop.run(lambda report: None, lambda done, total: None)
    loop.shards.gather()


def _training(
    work: Work,
    loaded: Loaded,
    graph: Graph,
    settings: Settings,
    windows: Tensor,
    scores: Scores | None,
    leads: bool = True,
) -> MaskTraining:
    """The training as it starts, with every random choice made by the seed. Raises NotPrunableError."""
    request, seed = work.spec.prune, work.spec.seed
    groups = groups_in_scope(graph, request.kinds, request.layers)
    second = copy.deepcopy(loaded.model) if settings.distillation == "second_model" else None
    gates = Gates(groups, starting_point(groups, settings, scores))
    torch.manual_seed(seed)  # LoRA starts the same, whatever was done or kept before
    twin = Twin(
        loaded.model, graph, gates.to(loaded.device),
        rank=settings.lora_rank, alpha=settings.lora_alpha, targets=settings.lora_targets,
    )  # fmt: skip
    return MaskTraining(
        twin, gates, graph, groups, windows, settings,
        allocation=request.allocation(), seed=seed, folder=_folder(work.run_dir), leads=leads, second=second,
    )  # fmt: skip


def _folder(run_dir: Path) -> Path:
    """Where a training keeps what it goes on from."""
    return run_dir / CHECKPOINT / FOLDER


def _checkpoint(run_dir: Path) -> Path:
    """The file of the checkpoint, beside that of every teacher."""
    return _folder(run_dir) / "nuteprune.safetensors"


def _load_windows(run_dir: Path) -> Tensor:
    """The windows that the run's own process trains on, (windows, length). Raises ArtifactError."""
    return torch.from_numpy(load_arrays(_folder(run_dir) / _WINDOWS)[0]["windows"])


def _finish(work: Work, loaded: Loaded, graph: Graph, training: MaskTraining) -> tuple[PruningPlan, Loaded]:
    """The plan at the target, written down, and the model with LoRA and surviving masks in its weights."""
    learned = replace(training.masks.plan, model=graph.model, method=work.spec.prune.method)
    stages.keep_plan(work, graph, learned)
    factors = training.gates.split(training.masks.final().detach())
    model = training.twin.release()
    fold(model, graph, factors)
    return learned, replace(loaded, model=model)


def _windows(work: Work, loaded: Loaded, settings: Settings) -> tuple[Tensor, Tensor]:
    """Windows to train on and windows kept apart, of the calibration text; each (windows, length)."""
    data = work.spec.calibration
    windows, _ = calibration_windows(
        loaded.model,
        loaded.tokenizer,
        data.name,
        samples=data.samples + settings.held,
        length=data.length,
        seed=work.spec.seed,
        **reading(work.spec),
    )
    return windows[: data.samples], windows[data.samples :]
