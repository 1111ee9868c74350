"""Recovery as a stage of a run: reads the data, trains, and says what came out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PretrainedConfig

from core.errors import ModelError
from core.files import write_json, write_text
from core.graph.records import Graph
from core.models.again import cut_before
from core.models.load import Loaded, load
from core.models.sources import resolve
from core.plan.records import PruningPlan
from core.recover.examples import (
    Source,
    TrainingData,
    check_source,
    examples,
    read_source,
    training_data,
)
from core.recover.loop import Loop
from core.recover.lora import target_modules
from core.recover.shards import Shards
from core.recover.team import Team
from core.recover.train import Recovery
from core.recover.written import mixed, shares
from core.results.measured import Measured
from core.results.widths import WIDTHS, widths
from core.runs.artifacts import CHECKPOINT, GROUPS, PLAN, read_graph, read_plan
from core.runs.recorder import Recorder
from core.spec.checks import check_length
from core.spec.recover import WEIGHTS, RecoverSpec
from core.spec.run import RunSpec
from core.stages import measure, teacher, together
from core.stages.measure import watched
from core.stages.needs import fitted_recipe
from core.stages.training import run
from core.stages.work import State, Work, kept, silent, warn_of_same

#: Names of a training: of its curves and of its folder of checkpoints. An ablation trains a coupled cut, too,
#: and beside any training the dense model may be trained.
FOLDER, COUPLED, CONTROL = "recover", "coupled", "control"
#: The dense model trained beside, measured, as a resumed run finds it.
MEASURED = "control.json"
#: So many sequences are surely enough, and need no counting before a run.
_PLENTY = 100


def recover(work: Work, loaded: Loaded, graph: Graph, name: str = FOLDER) -> dict[str, Any]:
    """Train the pruned model in place. Returns what `metrics.json` says of it, under `recover_…`."""
    recorder, recipe = work.recorder, fitted_recipe(work, loaded, graph, name)

    def on_curve(curve: str, step: int, value: float) -> None:
        recorder.metric(f"{name}{curve.removeprefix(FOLDER)}", step, value)

    source, data = _data(work, loaded)
    sharded = recipe.shard_weights == "on"
    with together.team(work, name, loaded, recipe.precision, cut=cuts(work, name), sharded=sharded) as team:
        training = Recovery(
            loaded, graph, data, recipe,
            seed=work.spec.seed, on_curve=on_curve, watched=watched(work.spec, loaded.tokenizer),
            teacher=teacher.teacher_of(work, loaded, graph, resting=sharded and team.size > 1),
        )  # fmt: skip
        shards = together.shards(work, team, training.frozen() if sharded else [], loaded.device)
        loop = Loop(training, team, _checkpoint(work, name), shards)
        if (_checkpoint(work, name).parent / "facts.json").is_file():
            recorder.warn("the checkpoint is of release 0.1, whose steps read other data; it starts again.")
            forget(work)
        loop.resume()
        run(recorder, loop)
        loop.shards.gather()
    facts = asdict(training.finish())
    _tell(recorder, facts)
    return {
        **{f"recover_{key}": value for key, value in facts.items()},
        "recover_method": recipe.method,
        "recover_data": source.name,
        "recover_data_sha256": source.sha256,
        **({"recover_data_instead": source.instead} if source.instead else {}),
        "recover_template": data.template,
        "recover_precision": recipe.precision,
        **({"recover_self_written": recipe.self_written} if recipe.self_written else {}),
    }


def train_along(
    work: Work, name: str, loaded: Loaded, weights: Mapping[str, Tensor], recipe: RecoverSpec, team: Team
) -> None:
    """Take part in a training that another process leads, from what it has written down and sent.

    Args:
        loaded: the model that the run was given, or for the control the dense one.
        weights: what the cut has left of it; empty where nothing was cut.

    Raises:
        LostTouchError: that one, or another, is gone.
    """
    graph, sharded = read_graph(work.run_dir), recipe.shard_weights == "on"
    if weights:
        loaded = cut_before(loaded, graph, read_plan(work.run_dir), weights)
    _, data = _data(work, loaded)
    training = Recovery(
        loaded, graph, data, recipe,
        seed=work.spec.seed, on_curve=lambda curve, step, value: None,
        teacher=teacher.teacher_of(work, loaded, graph, resting=sharded), leads=False,
    )  # fmt: skip
    models = training.frozen() if sharded else []
    loop = Loop(training, team, _checkpoint(work, name), Shards(team, models, loaded.device))
    loop.resume()
    loop.run(lambda report: None, lambda done, total: None)
    loop.shards.gather()


def load_along(work: Work, name: str, recipe: RecoverSpec) -> Loaded:
    """The model that a process trains along with, before it is cut as the first one's was."""
    model = teacher.dense_of(work.spec) if name == CONTROL else work.spec.model
    return load(**vars(model), resting=recipe.shard_weights == "on")


def cuts(work: Work, name: str) -> bool:
    """Whether what is trained was cut in this run."""
    return work.spec.goal == "prune" and name != CONTROL


def _checkpoint(work: Work, name: str) -> Path:
    return work.run_dir / CHECKPOINT / name / "recover.safetensors"


def _data(work: Work, loaded: Loaded) -> tuple[Source, TrainingData]:
    """What to train on, read and told."""
    recorder, recipe, spec = work.recorder, work.spec.recover, work.spec
    source, data = training_data(loaded.tokenizer, recipe, spec.seed, spec.data_dir)
    plain, data = data, mixed(work.spec, work.run_dir, data)
    if source.instead:
        recorder.warn(source.instead)
    if source.first:
        recorder.message(
            f"Read the first {source.first:,} rows of {source.name}: as much as the training needs"
        )
    if source.text is not None:
        warn_of_same(work, "training", source.text)
    recorder.message(
        f"{len(plain.train):,} sequences of {source.name} to train on, {len(data.held)} kept apart"
        + (f", {data.dropped} left out: no room for an answer" if data.dropped else "")
    )
    if data is not plain:
        ours, theirs = shares(recipe, len(plain.train))
        recorder.message(f"Of them {ours:,} are trained on, beside {theirs:,} that the dense model wrote")
    return source, data


def _tell(recorder: Recorder, facts: dict[str, Any]) -> None:
    if facts["best_step"] == 0:
        return recorder.warn(
            f"none of {facts['steps']} steps did better on the sequences kept apart, so the model "
            "is as it was; take a lower learning rate, more steps or other data."
        )
    if facts["ended"] is not None:
        left = facts["steps"] - facts["ended"]
        recorder.message(f"Nothing was gained after step {facts['best_step']}; {left} steps are not taken")
    before, after = facts["held_ppl_before"], facts["held_ppl_after"]
    apart = [facts[f"held_kl_{side}"] for side in ("before", "after")]
    taught = f", divergence from the teacher {apart[0]:.3f} -> {apart[1]:.3f}" if None not in apart else ""
    recorder.message(
        f"Perplexity on the sequences kept apart {before:.2f} -> {after:.2f}{taught}, "
        f"best after {facts['best_step']} of {facts['steps']} steps; merged into the weights"
    )


def controls(spec: RunSpec) -> bool:
    """Whether the dense model is trained beside the pruned one."""
    return spec.recover.controls


def control(state: State) -> None:
    """Train the dense model with LoRA on the same sequences, and measure it: perplexity alone.

    What training gives a pruned model is repair in so far as it is more than the same text gives a model
    from which nothing was cut.
    """
    state.control = measure.kept_or(state.work, MEASURED, lambda: _control(state))
    measure.tell(state.work, f"ppl_{CONTROL}", state.control)


def of_control(work: Work) -> Work:
    """The work of training the dense model."""
    return replace(work, spec=replace(work.spec, recover=work.spec.recover.of_control()))


def _control(state: State) -> Measured:
    work = state.work
    work = silent(of_control(work))
    dense = teacher.dense_model(work)
    recover(work, dense, state.graph, CONTROL)
    return measure.quality(work, dense, CONTROL)


def forget(work: Work) -> None:
    """Remove the checkpoint of a training whose result is saved."""
    for name in (FOLDER, COUPLED, CONTROL):
        shutil.rmtree(work.run_dir / CHECKPOINT / name, ignore_errors=True)
    teacher.forget(work)


def check(spec: RunSpec, config: PretrainedConfig) -> None:
    """Find what is wrong with a recovery before anything is started.

    Raises:
        ModelError: the model to recover is not pruned.
        DataError: the data cannot be read.
        SpecError: sequences longer than the model reads.
    """
    recipe = spec.recover
    if spec.goal == "recover" and resolve(spec.model.source).kind != "pruned":
        raise _not_pruned(spec.model.source)
    if recipe.method == "none":
        return
    check_length("recover length", recipe.length, config)
    check_source(recipe.data, spec.data_dir)
    teacher.check(spec)


def check_enough(spec: RunSpec, tokenizer: Callable[[], Any]) -> None:
    """Raises DataError where there is too little to train on, and says how much there is."""
    recipe = spec.recover
    source = read_source(recipe.data, _PLENTY, recipe.length, spec.data_dir)
    plenty = len(source.rows) >= _PLENTY
    if source.text is not None:
        plenty = len(source.text.text) >= 16 * _PLENTY * recipe.length
    if not plenty:
        examples(tokenizer(), source, length=recipe.length, held=recipe.held, seed=spec.seed)


def plan_of_pruned(work: Work, loaded: Loaded) -> tuple[Graph, PruningPlan]:
    """The graph and the plan of the run that made a pruned model; this run keeps them as its own.

    They are about the model that was given to that run, which its numbers are compared with, too. Of a folder
    alone, they are about the first base.

    Raises:
        ModelError: this model is not pruned. ArtifactError: its files are damaged.
    """
    if loaded.plan is None or loaded.graph is None:
        raise _not_pruned(loaded.name)
    source = Path(work.spec.model.source)
    graph, plan = kept(read_graph, source), kept(read_plan, source)
    if graph is None or plan is None:
        graph, plan = loaded.graph, loaded.plan
    write_text(work.run_dir / GROUPS, graph.to_json())
    write_text(work.run_dir / PLAN, plan.to_json())
    write_json(work.run_dir / WIDTHS, widths(graph, plan))
    for name in (GROUPS, PLAN, WIDTHS):
        work.recorder.artifact(name)
    return graph, plan


def check_targets(loaded: Loaded, graph: Graph, recipe: RecoverSpec) -> None:
    """Find out before anything is cut whether there is something to train. Raises InputError."""
    if recipe.method != "none" and recipe.targets != WEIGHTS:
        target_modules(loaded.model, graph, recipe.targets)


def _not_pruned(name: str) -> ModelError:
    return ModelError(
        f"{name} is not pruned, so there is nothing to recover; give a finished pruning run, or prune it "
        "with --recover lora or distill."
    )
