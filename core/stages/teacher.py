"""Who teaches in a run, and what is kept of it before anything is cut."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import ArtifactError, ModelError, SpecError
from core.graph.records import Graph
from core.models.load import Loaded, load, load_config, load_tokenizer
from core.models.sources import at_hand
from core.plan.composed import staying
from core.recover.examples import Example, TrainingData, training_data
from core.recover.logits import About, Kept, hash_of
from core.recover.loop import rows_of_step
from core.recover.teacher import FromDisk, Live, Teacher
from core.recover.train import steps_of
from core.recover.written import mixed
from core.runs.artifacts import CHECKPOINT, read_spec
from core.spec.model import ModelSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from core.stages import measure
from core.stages.work import State, Work

#: Below the run's checkpoints, where no other folder is asked for.
FOLDER = "teacher"
#: A recovery of a recovery of … is followed back to the dense model so far at most.
_DEEPEST = 20


def source_of(spec: RunSpec) -> ModelSpec:
    """The model that teaches: as asked for, or the dense one. Raises as `dense_of`."""
    named = spec.recover.teacher
    return replace(spec.model, source=named, adapter="") if named else dense_of(spec)


def dense_of(spec: RunSpec) -> ModelSpec:
    """The model that was pruned, with the adapter that was merged into it.

    Raises:
        ModelError: nothing says which that is.
    """
    model, goal = spec.model, spec.goal
    for _ in range(_DEEPEST):
        if goal == "prune":
            return replace(spec.model, source=model.source, adapter=model.adapter)
        try:
            before = read_spec(Path(model.source))
        except ArtifactError:
            break
        model, goal = before.model, before.goal
    raise ModelError(
        f"{spec.model.source} does not say which dense model it was, so nobody can teach, or learn the "
        "same text; name it with --teacher MODEL, and leave out --control."
    )


def check(spec: RunSpec) -> None:
    """Find out whether the teacher can teach this student, before anything is started.

    Raises:
        ModelError: there is no such model. SpecError: its tokens are others than the student's, or what is to
            hold what it says is no folder.
    """
    if spec.recover.controls:
        dense_of(spec)
    folder = Path(spec.recover.logits).expanduser() if spec.recover.logits else None
    if folder:
        _check_folder(folder)
    if not spec.recover.distils or (spec.goal == "prune" and not spec.recover.teacher):
        return
    source, trust = source_of(spec).source, spec.model.trust_remote_code
    try:
        load_config(source, trust)
    except ModelError as error:
        if spec.recover.teacher:
            raise
        raise ModelError(
            f"{source}, which {spec.model.source} was cut from and which would teach it, cannot be read; "
            f"name another with --teacher MODEL. {error}"
        ) from error
    ours, theirs = (load_tokenizer(name, trust).get_vocab() for name in (spec.model.source, source))
    if ours != theirs:
        others = sum(theirs.get(token) != number for token, number in ours.items())
        raise SpecError(
            f"The teacher {source} reads other tokens than {spec.model.source}: {len(theirs):,} and "
            f"{len(ours):,} of them, {others:,} with other numbers; give a --teacher with the same tokenizer."
        )
    if spec.recover.layer_weight and spec.goal == "prune":
        _check_layers(spec.model, source)


def _check_folder(folder: Path) -> None:
    """Raises SpecError where nothing can be kept in a folder of this name."""
    above = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if not above.is_dir():
        raise SpecError(f"teacher-logits must be a folder, got the file {above}; name a new one.")
    if not os.access(above, os.W_OK):
        raise SpecError(f"teacher-logits must be a folder that can be written, got {folder}; name another.")


def _check_layers(model: ModelSpec, source: str) -> None:
    """Raises SpecError where layers of a teacher are compared that are others than the student's."""
    if any((known := at_hand(name)) and known.kind == "pruned" for name in (model.source, source)):
        return  # what an earlier cut took is looked up where both are loaded
    configs = [load_config(name, model.trust_remote_code) for name in (model.source, source)]
    ours, theirs = (
        (config.num_hidden_layers, config.hidden_size)
        for config in (each.get_text_config() for each in configs)
    )
    if ours != theirs:
        raise SpecError(
            f"layer_weight compares layer with layer: the teacher {source} has {theirs[0]} layers of "
            f"{theirs[1]:,} channels, and {model.source} {ours[0]} of {ours[1]:,}; give another --teacher, "
            "or --layer-weight 0."
        )


def teacher_of(work: Work, loaded: Loaded, graph: Graph, *, resting: bool = False) -> Teacher | None:
    """Who teaches this model; None where nobody does. Raises ModelError, ArtifactError.

    Args:
        resting: whether its weights stay in memory, because they are to be sharded.
    """
    recipe = work.spec.recover
    if not recipe.distils:
        return None
    if recipe.top_k:
        return FromDisk(Kept(_folder(work)), recipe.temperature)
    dense = load_model(work, source_of(work.spec), resting=resting)
    layers = [dense.model.get_submodule(name) for name in graph.layer_modules] if recipe.layer_weight else []
    return Live(dense.model, recipe.temperature, layers, _channels(loaded, dense))


def keep(state: State) -> None:
    """Keep what the teacher says of all that will be trained on, as far as it is not kept yet.

    It is done while the dense model is in memory anyway; one that is only trained back has none, and its
    teacher is read for the time of this.

    Raises:
        DataError: the folder is of another model or text, which is named.
        StorageError: the disk is too small.
    """
    work, spec, recipe = state.work, state.work.spec, state.work.spec.recover
    at_hand = spec.goal == "prune" and not recipe.teacher
    dense = state.loaded if at_hand else load_model(work, source_of(spec))
    tokenizer = load_tokenizer(spec.model.source, spec.model.trust_remote_code)
    source, data = training_data(tokenizer, recipe, spec.seed, spec.data_dir)
    data = mixed(work.spec, work.run_dir, data)
    about = About(
        dense.name, hash_of(dense.model), source.name, source.sha256, recipe.top_k, recipe.temperature
    )
    kept = Kept(_folder(work), about)
    wanted = [*_read(recipe, data, spec.seed), *data.held]
    missing = kept.missing(wanted)
    work.recorder.message(
        f"Of {len(wanted):,} sequences, the likeliest {recipe.top_k} tokens at every position are kept in "
        f"{kept.folder}; {len(missing):,} are still to be read, "
        f"{kept.bytes_of(dense.model, missing) / 2**30:.3f} GiB"
    )
    if missing:
        counter = work.recorder.counter("sequences read by the teacher")
        kept.add(dense.model, missing, tokenizer.pad_token_id or 0, counter)


def refer(state: State) -> None:
    """Let the dense model read every text that is measured, so that what is trained back is compared with it.

    It is read for the time of this; where it cannot be, that is said, and nothing is compared.
    """
    work = state.work
    try:
        dense = dense_model(work)
    except ModelError as error:
        return work.recorder.message(f"The divergence from the dense model is not measured: {error}")
    measure.refer(work, dense)


def forget(work: Work) -> None:
    """Remove what the run kept for itself."""
    shutil.rmtree(work.run_dir / CHECKPOINT / FOLDER, ignore_errors=True)


def _folder(work: Work) -> Path:
    asked = work.spec.recover.logits
    return Path(asked).expanduser() if asked else work.run_dir / CHECKPOINT / FOLDER


def _read(recipe: RecoverSpec, data: TrainingData, seed: int) -> list[Example]:
    """The sequences that the steps will read, each once."""
    count = len(data.train)
    steps = range(steps_of(recipe, count))
    rows = {row for step in steps for row in rows_of_step(count, recipe.batch, step, seed)}
    return [data.train[row] for row in sorted(rows)]


def dense_model(work: Work) -> Loaded:
    """The model that was pruned, in memory. Raises ModelError."""
    return load_model(work, dense_of(work.spec))


def load_model(work: Work, model: ModelSpec, *, resting: bool = False) -> Loaded:
    """A model beside the pruned one, read as that was. Raises ModelError."""
    work.recorder.message(f"Loading {model.source}, which is dense")
    return load(**vars(model), resting=resting)


def _channels(loaded: Loaded, dense: Loaded) -> Tensor | None:
    """The hidden channels of the teacher that the student still has; None for all.

    A teacher that was pruned itself is taken to be what the student was before its last cut.
    """
    ours, theirs = _hidden(loaded), _hidden(dense)
    if ours is None or (theirs is not None and len(ours) == len(theirs)):
        return None
    places = ours if theirs is None else np.searchsorted(theirs, ours)
    return torch.from_numpy(places).to(loaded.device)


def _hidden(loaded: Loaded) -> NDArray[np.int64] | None:
    """The hidden channels of its first base that a model still has, (channels,); None for all."""
    if loaded.plan is None or loaded.graph is None:
        return None
    stays = staying(loaded.graph, loaded.plan)
    group = next(iter(loaded.graph.of_kind("residual_channel")), None)
    return stays[group.id] if group is not None and len(stays[group.id]) < group.units else None
