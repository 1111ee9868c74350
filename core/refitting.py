"""The stage of a run that refits what stays; what was found is kept, so a resumed run has it at once."""

from __future__ import annotations

import torch

from core import artifacts
from core.artifacts import CHECKPOINT, RECONSTRUCTED, RECONSTRUCTION
from core.graph.records import Graph
from core.models import Loaded
from core.plan import PruningPlan
from core.reconstruct import reconstruct as refit
from core.stages import windows
from core.surgery import add_biases
from core.work import Work, kept


def reconstruct(work: Work, loaded: Loaded, graph: Graph, plan: PruningPlan) -> None:
    """Refit the dense model for the plan, in place; what changed is kept for a resumed run."""
    how, model = work.spec.prune.reconstruct, loaded.model
    if how == "none":
        return
    work.recorder.stage("reconstruct")
    changed = kept(lambda folder: artifacts.load_arrays(folder / CHECKPOINT / RECONSTRUCTED)[0], work.run_dir)
    if changed is None:
        read, count = windows(work, loaded), work.recorder.counter("layers")
        found = refit(model, graph, plan, read, how=how, on_progress=count)
        artifacts.write_json(work.run_dir / RECONSTRUCTION, {"fits": found.fits, "notes": found.notes})
        tensors = {name: model.get_parameter(name).detach() for name in sorted(found.changed)}
        changed = {name: tensor.float().cpu().numpy() for name, tensor in tensors.items()}
        artifacts.save_arrays(work.run_dir / CHECKPOINT / RECONSTRUCTED, changed, {"how": how})
        for note in found.notes:
            work.recorder.message(note)
    add_biases(model, plan.biases)
    with torch.no_grad():
        for name, value in changed.items():
            model.get_parameter(name).copy_(torch.from_numpy(value))
    work.recorder.artifact(RECONSTRUCTION)


def forget(work: Work) -> None:
    """Remove what only a resumed run needs: it is as large as the matrices that were refitted."""
    (work.run_dir / CHECKPOINT / RECONSTRUCTED).unlink(missing_ok=True)
