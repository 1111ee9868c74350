"""The stage of a run that refits what stays; what was found is kept, so a resumed run has it at once."""

from __future__ import annotations

from dataclasses import replace

import torch

from core.files import load_arrays, read_json, save_arrays, write_json
from core.graph.records import Graph
from core.models.load import Loaded
from core.plan.allocation import groups_in_scope
from core.plan.cost import with_costs
from core.plan.records import PruningPlan
from core.recover.reconstruct import reconstruct as refit
from core.recover.rescoring import Rescoring
from core.runs.artifacts import CHECKPOINT, RECONSTRUCTED, RECONSTRUCTION
from core.spec.run import RunSpec
from core.stages.steps import keep_plan, windows
from core.stages.work import Work, kept
from core.surgery.operate import add_biases


def rescoring(spec: RunSpec) -> Rescoring:
    """How a run chooses units anew while it refits."""
    asked = spec.prune
    return Rescoring(asked.method, spec.seed, asked.options, asked.multiple)


def recounted(graph: Graph, plan: PruningPlan, removed: dict[str, tuple[int, ...]]) -> PruningPlan:
    """The plan with the units that went in the end."""
    if removed == plan.removed:
        return plan
    return with_costs(graph, replace(plan, removed=removed), groups_in_scope(graph, plan.kinds, plan.layers))


def reconstruct(work: Work, loaded: Loaded, graph: Graph, plan: PruningPlan) -> PruningPlan:
    """Refit the dense model for the plan, in place; what changed is kept for a resumed run.

    Returns:
        The plan with the units that went in the end, written down.
    """
    how, model = work.spec.prune.reconstruct, loaded.model
    if how == "none":
        return plan
    work.recorder.stage("reconstruct")
    changed = kept(lambda folder: load_arrays(folder / CHECKPOINT / RECONSTRUCTED)[0], work.run_dir)
    if changed is None:
        read, count = windows(work, loaded), work.recorder.counter("layers")
        again = rescoring(work.spec)
        found = refit(model, graph, plan, read, how=how, rescoring=again, on_progress=count)
        record = {"fits": found.fits, "notes": found.notes, "removed": found.removed}
        write_json(work.run_dir / RECONSTRUCTION, record)
        tensors = {name: model.get_parameter(name).detach() for name in sorted(found.changed)}
        changed = {name: tensor.float().cpu().numpy() for name, tensor in tensors.items()}
        save_arrays(work.run_dir / CHECKPOINT / RECONSTRUCTED, changed, {"how": how})
        for note in found.notes:
            work.recorder.message(note)
    add_biases(model, plan.biases)
    with torch.no_grad():
        for name, value in changed.items():
            model.get_parameter(name).copy_(torch.from_numpy(value))
    work.recorder.artifact(RECONSTRUCTION)
    removed = read_json(work.run_dir / RECONSTRUCTION)["removed"]
    final = recounted(graph, plan, {group: tuple(units) for group, units in removed.items()})
    return final if final == plan else keep_plan(work, graph, final)


def forget(work: Work) -> None:
    """Remove what only a resumed run needs: it is as large as the matrices that were refitted."""
    (work.run_dir / CHECKPOINT / RECONSTRUCTED).unlink(missing_ok=True)
