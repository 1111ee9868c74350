"""From a plan to a folder that loads: the model is cut, and, measured and trained, it is saved."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from core.errors import ArtifactError, NotPrunableError
from core.files import load_arrays, save_arrays, write_json
from core.graph.places import tied_names
from core.graph.records import Graph
from core.models.again import cut_before, cut_loaded
from core.models.card_head import hub_data, inherited
from core.models.demo import DEMO_HUB
from core.models.saved import save
from core.models.stored import round_to
from core.plan.allocation import allocate, groups_in_scope
from core.plan.composed import composed, what_is_left
from core.plan.cost import params_in
from core.plan.records import PruningPlan
from core.results.agreement import CHECK, Agreement, Check, read_check
from core.results.scores import ranked_by
from core.runs.artifacts import CHECKPOINT, MODEL, PLAN
from core.stages import metrics, reconstruct, steps
from core.stages.measure import dense_to_time
from core.stages.work import State, Work, kept

#: Below the run's checkpoints, with the scores of every round, and what the last one left.
ROUNDS = "rounds"
_LEFT = "left.safetensors"


def surgery(state: State) -> None:
    """Cut the model in place, and keep how close every layer came to what it gave under masks.

    Raises:
        NotPrunableError: what was cut does something else; says what is kept, and where.
    """
    work, plan = state.work, state.plan

    def keep(agreements: list[Agreement]) -> None:
        write_json(work.run_dir / CHECK, asdict(Check(cut=agreements)))
        work.recorder.artifact(CHECK)

    try:
        state.loaded = cut_loaded(state.loaded, state.graph, plan, on_checked=keep)
    except NotPrunableError as error:
        raise NotPrunableError(f"{error} {_what_is_kept(work.run_dir)}") from error
    settle(state)


def rounds(state: State) -> Iterator[State]:
    """A state for every round that is left: the model as the rounds before left it, and its groups.

    Afterwards the plan is that of all rounds, about the model that was given. What each round leaves is kept,
    so a resumed run goes on after it.
    """
    work, total = state.work, state.work.spec.prune.rounds
    state.dense = dense_to_time(state)
    for number in range(_rounds_done(state) + 1, total + 1):
        own = copy.copy(state)
        own.folder = work.run_dir / CHECKPOINT / ROUNDS / str(number)
        if number > 1:
            own.graph = what_is_left(state.graph, state.plan, model=state.graph.model)
        own.sparsity = _due(state, own.graph, number)
        work.recorder.message(f"Round {number} of {total}: {own.sparsity:.1%} of what is left")
        yield own
        state.loaded = own.loaded
        state.plan = own.plan if number == 1 else composed(state.graph, state.plan, own.plan)
        steps.keep_plan(work, state.graph, state.plan, state.timings)
        reconstruct.forget(work)  # the next round's matrices have other shapes
        _keep_round(state, number)


def _due(state: State, graph: Graph, number: int) -> float:
    """How much of the parameters in scope goes, so that after this round its share of the target is gone."""
    asked = state.work.spec.prune
    dense, left = (
        params_in(of, groups_in_scope(of, asked.kinds, asked.layers)) for of in (state.graph, graph)
    )
    goal = asked.sparsity * number / asked.rounds * dense
    if number > 1 and state.plan.before and state.plan.after:
        goal -= state.plan.before.params - state.plan.after.params
    return max(goal / left, 0.0)


def plan_round(state: State) -> None:
    """Which units go in this round."""
    asked, graph = state.work.spec.prune, state.graph
    scores = state.scores[ranked_by(asked.method, asked.scope)]
    arguments = asked.allocation() | {"sparsity": state.sparsity}
    state.plan = allocate(graph, scores, **arguments, method=asked.method, model=graph.model)


def _rounds_done(state: State) -> int:
    """How many rounds are kept; the model is then as the last of them left it."""
    path = state.work.run_dir / CHECKPOINT / ROUNDS / _LEFT
    found = kept(lambda _: load_arrays(path), state.work.run_dir)
    if found is None:
        return 0
    arrays, said = found
    state.plan = PruningPlan.from_json(said["plan"])
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    state.loaded = cut_before(state.loaded, state.graph, state.plan, tensors)
    steps.keep_plan(state.work, state.graph, state.plan)
    state.work.recorder.message(f"{said['round']} of {state.work.spec.prune.rounds} rounds are kept")
    return int(said["round"])


def _keep_round(state: State, number: int) -> None:
    """Keep the plan so far, and the weights that it left."""
    model = state.loaded.model
    aliases = tied_names(model)
    values = {name: value for name, value in model.state_dict().items() if name not in aliases}
    wide = {name: value.float() if value.is_floating_point() else value for name, value in values.items()}
    arrays = {name: value.cpu().contiguous().numpy() for name, value in wide.items()}
    folder = state.work.run_dir / CHECKPOINT / ROUNDS
    save_arrays(folder / _LEFT, arrays, {"round": str(number), "plan": state.plan.to_json()})


def forget_rounds(work: Work) -> None:
    """Remove what only a resumed run needs."""
    shutil.rmtree(work.run_dir / CHECKPOINT / ROUNDS, ignore_errors=True)


def settle(state: State) -> None:
    """Round what was cut or trained to what will be saved of it: that is what is then measured."""
    round_to(state.loaded.model, state.loaded.stored)


def _what_is_kept(run_dir: Path) -> str:
    """What a run that cannot go on leaves, and where: nothing that was learned is lost with it."""
    learned = any((run_dir / CHECKPOINT).glob("*/*.safetensors"))
    parts = [f"the plan in {PLAN}", "what was measured in checkpoint/"]
    parts += ["all that was trained in checkpoint/, too"] if learned else []
    parts += [f"the numbers of the check in {CHECK}"] if (run_dir / CHECK).is_file() else []
    return f"Nothing is lost: {run_dir} keeps {', '.join(parts)}; resuming the run goes on from there."


def export(state: State) -> None:
    """Save the pruned model where `from_pretrained` finds it."""
    state.metrics = {**metrics.pruning(state), **state.metrics}
    folder = state.work.run_dir / MODEL
    loaded, facts = state.loaded, {**state.metrics, **_origin(state)}
    assert loaded.graph and loaded.plan, "the model was cut"
    parts = (loaded.model, loaded.tokenizer, loaded.graph, loaded.plan, folder)
    try:
        saved = save(*parts, facts=facts, dtype=loaded.stored)
    except ArtifactError as error:
        raise ArtifactError(f"{error} {_what_is_kept(state.work.run_dir)}") from error
    earlier = kept(read_check, state.work.run_dir) or Check()
    write_json(state.work.run_dir / CHECK, asdict(replace(earlier, saved=saved)))
    state.work.recorder.artifact(CHECK)
    ways = " and ".join(row.where for row in saved)
    state.work.recorder.message(f"Read back in a process of its own {ways}: it computes what was saved")
    state.work.recorder.artifact(MODEL)


def _origin(state: State) -> dict[str, Any]:
    """What a model's card says of where it comes from, besides what was measured."""
    loaded, spec = state.loaded, state.work.spec
    on_hub = DEMO_HUB if spec.model.source == "demo" else spec.model.source if loaded.revision else None
    before = inherited(loaded.folder, on_hub)
    used = [state.metrics.get("calibration_text") and spec.calibration.name]
    used += [spec.recover.data] if state.metrics.get("recover_method") else []
    datasets = dict.fromkeys([*before.get("datasets", []), *hub_data(*used)])
    return {**before, "datasets": [*datasets], "reconstruct": spec.prune.reconstruct}
