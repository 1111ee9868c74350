"""The stage of a run that refits what stays; what was found is kept, so a resumed run has it at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from core.files import load_arrays, read_json, save_arrays, write_json
from core.graph.records import Graph
from core.plan.allocation import groups_in_scope
from core.plan.cost import with_costs
from core.plan.records import PruningPlan
from core.recover.reconstruct import reconstruct as refit
from core.recover.rescoring import Rescoring
from core.runs.artifacts import CHECKPOINT, RECONSTRUCTED, RECONSTRUCTION
from core.spec.run import RunSpec
from core.stages.steps import keep_plan, recovery_windows, windows
from core.stages.work import State, Work, add_facts, kept
from core.surgery.operate import add_biases


def rescoring(spec: RunSpec) -> Rescoring:
    """How a run chooses units again while it refits."""
    asked = spec.prune
    return Rescoring(asked.method, spec.seed, asked.options, asked.multiple, scope=asked.scope)


def recounted(graph: Graph, plan: PruningPlan, removed: dict[str, tuple[int, ...]]) -> PruningPlan:
    """The plan with the units that went in the end."""
    if removed == plan.removed:
        return plan
    return with_costs(graph, replace(plan, removed=removed), groups_in_scope(graph, plan.kinds, plan.layers))


def reconstruct(state: State) -> None:
    """Refit the dense model for the plan, in place; what changed is kept for a resumed run.

    Which units go may change on the way: then the plan is written down again.
    """
    work, plan, model = state.work, state.plan, state.loaded.model
    changed = kept(lambda folder: load_arrays(folder / CHECKPOINT / RECONSTRUCTED)[0], work.run_dir)
    if changed is None:
        changed = _refitted(state)
    add_biases(model, plan.biases)
    with torch.no_grad():
        for name, value in changed.items():
            model.get_parameter(name).copy_(torch.from_numpy(value))
    work.recorder.artifact(RECONSTRUCTION)
    removed = read_json(work.run_dir / RECONSTRUCTION)["removed"]
    final = recounted(state.graph, plan, {group: tuple(units) for group, units in removed.items()})
    if final != plan:
        state.plan = keep_plan(work, state.graph, final, state.timings)


def _refitted(state: State) -> dict[str, NDArray[Any]]:
    """Parameters that refitting changes: name -> new value."""
    work, model = state.work, state.loaded.model
    how, count, again = work.spec.prune.reconstruct, work.recorder.counter("layers"), rescoring(work.spec)
    read, text = windows(work, state.loaded)
    add_facts(work, calibration=text)
    recovery = recovery_windows(work, state.loaded) if how == "pre_pruning" else None
    refitted = refit(
        model, state.graph, state.plan, read,
        how=how, rescoring=again, recovery=recovery, on_progress=count,
    )  # fmt: skip
    record = {"fits": refitted.fits, "notes": refitted.notes, "removed": refitted.removed}
    write_json(work.run_dir / RECONSTRUCTION, record)
    tensors = {name: model.get_parameter(name).detach() for name in sorted(refitted.changed)}
    changed = {name: tensor.float().cpu().numpy() for name, tensor in tensors.items()}
    save_arrays(work.run_dir / CHECKPOINT / RECONSTRUCTED, changed, {"how": how})
    for note in refitted.notes:
        work.recorder.message(note)
    return changed


def forget(work: Work) -> None:
    """Remove what only a resumed run needs: it is as large as the matrices that were refitted."""
    (work.run_dir / CHECKPOINT / RECONSTRUCTED).unlink(missing_ok=True)
