"""Runs a training and tells about it: a point of every curve per step, and the masks as a file.

Stopping waits for the step at work to end; then a checkpoint is written, whoever asked.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import StopRequested
from core.graph.records import Group
from core.nuteprune.trainer import Report, Trainer
from core.results.masks import MASKS, MaskState, write_masks
from core.runs.processes import signals_wait
from core.runs.recorder import Recorder

#: A curve has at most about so many points, however long the run is.
_POINTS = 2000


def run(recorder: Recorder, trainer: Trainer, held: Tensor) -> None:
    """Train to the last step.

    Args:
        held: windows kept apart for the perplexity of the model as it would be cut now, (windows, length).

    Raises:
        StopRequested: after the step at work, which is saved.
        TrainingError, StorageError: the checkpoint before stays good.
    """
    settings, state, seconds = trainer.settings, trainer.state, list[float]()
    recorder.goes_on(state.step)
    with signals_wait(recorder.run_dir):
        while state.step < settings.steps:
            began = time.perf_counter()
            report = trainer.step()
            seconds.append(time.perf_counter() - began)
            _tell(recorder, trainer, report, seconds[-1])
            ended = state.step == settings.steps
            if ended or state.step % settings.measure_every == 0:
                _measure(recorder, trainer, held)
            if ended or state.step % settings.checkpoint_every == 0:
                trainer.save()
            try:
                recorder.progress(state.step, settings.steps)
            except StopRequested:
                trainer.save()
                recorder.message(f"Stopped after step {state.step} of {settings.steps}, which is saved")
                raise
    if seconds:
        recorder.message(
            f"Trained {settings.steps} steps, {median(seconds):.2f} s each, {state.skipped} skipped; "
            f"{len(trainer.bank.levels)} teachers"
        )


def _tell(recorder: Recorder, trainer: Trainer, report: Report, seconds: float) -> None:
    """A point of every curve."""
    if not report.finite:
        recorder.message(
            f"Step {report.step} is skipped: its loss is not finite ({trainer.state.skipped} so far)"
        )
    if report.step % -(-trainer.settings.steps // _POINTS):
        return
    learned = "next_token_loss" if trainer.settings.distillation == "none" else "kl"
    points = {
        "target": report.target,
        "expected": report.expected,
        "actual": report.actual,
        learned: report.loss if report.finite else None,
        "layer_loss": report.layer if report.finite else None,
        "lambda_1": report.linear,
        "lambda_2": report.quadratic,
        "teacher": report.teacher,
        "skipped": float(trainer.state.skipped),
        "seconds_per_step": seconds,
        "memory_gib": memory_gib(trainer.twin.model.device),
    }
    for name, value in points.items():
        if value is not None:
            recorder.metric(f"train.{name}", report.step + 1, value)


def _measure(recorder: Recorder, trainer: Trainer, held: Tensor) -> None:
    step = trainer.state.step
    recorder.metric("train.ppl_cut", step, trainer.perplexity(held))
    write_masks(recorder.run_dir, mask_state(trainer))
    recorder.artifact(MASKS)


def mask_state(trainer: Trainer) -> MaskState:
    """The masks, and what would stay of the model if it were cut now."""
    with torch.no_grad():
        masks, final = trainer.masks, trainer.masks.final().cpu()
        factors = trainer.gates.split(final if masks.settled else masks.certain().cpu())
        stays = trainer.gates.split(final > 0)
    return MaskState(
        trainer.state.step,
        trainer.settings.steps,
        {kind: _rows(trainer.groups, kind, factors, np.nan) for kind in _kinds(trainer.groups)},
        {kind: _rows(trainer.groups, kind, stays, False) for kind in _kinds(trainer.groups)},
    )


def _kinds(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(group.kind for group in groups))


def _rows(groups: Sequence[Group], kind: str, values: Mapping[str, Tensor], filler: Any) -> NDArray[Any]:
    """One row per layer, (layers, units); the experts of a layer stand one after the other."""
    layers: dict[int, list[NDArray[Any]]] = {}
    for group in groups:
        if group.kind == kind:
            layers.setdefault(group.layer or 0, []).append(values[group.id].numpy())
    rows = {layer: np.concatenate(parts) for layer, parts in layers.items()}
    table = np.full(
        (max(rows) + 1, max(map(len, rows.values()))), filler, dtype=next(iter(rows.values())).dtype
    )
    for layer, row in rows.items():
        table[layer, : len(row)] = row
    return table


def memory_gib(device: torch.device) -> float:
    """What this process holds now: on the device if that has memory of its own."""
    held = (
        torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss
    )
    return float(held) / 2**30
