"""Tells about NutePrune at work: a point of every curve per step, and the masks as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.evaluate.perplexity import perplexity
from core.graph.records import Group
from core.nuteprune.training import MaskTraining, Report
from core.recover.loop import Loop
from core.results.masks import MASKS, MaskState, write_masks
from core.runs.recorder import Recorder
from core.stages import training as stages

#: About how many points a curve has at most, however long the run is.
_POINTS = 2000


def run(
    recorder: Recorder,
    loop: Loop[Report],
    training: MaskTraining,
    held: Tensor,
    watched: Mapping[str, Tensor],
) -> None:
    """Train to the last step, see `core.stages.training.run`.

    Args:
        held: windows kept apart for the perplexity of the model as it would be cut now, (windows, length).
        watched: texts that nobody trains on: name -> windows to follow the same on, (windows, window).
    """
    curves = {"train.ppl_cut": held, **{f"train.ppl_cut.{name}": read for name, read in watched.items()}}
    steps = training.settings.steps

    def on_step(report: Report) -> None:
        _tell(recorder, loop, training, report)
        if loop.state.step == steps or loop.state.step % training.settings.measure_every == 0:
            training.judge(loop.state.step, _measure(recorder, loop, training, curves))

    stages.run(recorder, loop, on_step)
    if left := steps - loop.state.step:
        recorder.message(f"Nothing more was gained by step {loop.state.step}; {left} steps are not taken")
    if loop.seconds:
        recorder.message(
            f"Trained {loop.state.step} steps, {median(loop.seconds):.2f} s each, "
            f"{loop.state.skipped} skipped; {len(training.bank.levels)} teachers"
        )


def _tell(recorder: Recorder, loop: Loop[Report], training: MaskTraining, report: Report) -> None:
    """A point of every curve."""
    if report.step % -(-training.settings.steps // _POINTS):
        return
    points, learned = asdict(report), "next_token_loss" if training.settings.distillation == "none" else "kl"
    step, finite, points[learned] = points.pop("step"), points.pop("finite"), points.pop("loss")
    if not finite:
        del points[learned], points["layer_loss"]
    points["skipped"], points["seconds_per_step"] = float(loop.state.skipped), loop.seconds[-1]
    points["memory_gib"] = memory_gib(training.twin.model.device)
    for name, value in points.items():
        if value is not None:
            recorder.metric(f"train.{name}", step + 1, value)


def _measure(
    recorder: Recorder, loop: Loop[Report], training: MaskTraining, curves: Mapping[str, Tensor]
) -> float:
    """A point of every curve of perplexity, and the masks.

    Args:
        curves: name -> windows, (windows, length).

    Returns:
        The first curve's.
    """
    step, masks = loop.state.step, training.masks
    with torch.no_grad(), loop.team.accelerator.autocast():
        model = training.twin.act(masks.final())
        values = {name: perplexity(model, windows).ppl for name, windows in curves.items()}
    for name, ppl in values.items():
        recorder.metric(name, step, ppl)
    write_masks(recorder.run_dir, mask_state(training, step))
    recorder.artifact(MASKS)
    return next(iter(values.values()))


def mask_state(training: MaskTraining, step: int) -> MaskState:
    """The masks after N steps, and what would stay of the model if it were cut now."""
    with torch.no_grad():
        masks, final = training.masks, training.masks.final().cpu()
        factors = training.gates.split(final if masks.settled else masks.certain().cpu())
        stays = training.gates.split(final > 0)
    groups, kinds = training.groups, list(dict.fromkeys(group.kind for group in training.groups))
    return MaskState(
        step,
        training.settings.steps,
        {kind: _rows(groups, kind, factors, np.nan) for kind in kinds},
        {kind: _rows(groups, kind, stays, False) for kind in kinds},
    )


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
