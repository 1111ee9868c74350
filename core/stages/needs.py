"""What a training needs, against what there is: fitted, said, or refused, before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.devices.lending import spread_of
from core.devices.memory import free_memory
from core.devices.picked import multiplied_in
from core.errors import SpecError
from core.graph.records import Graph
from core.memory.shapes import Shapes, shapes_of
from core.memory.training import Taken, Way, freed_bytes, needed_bytes, of_masks, of_recipe
from core.methods import FITTED, method_of
from core.models.load import Loaded
from core.recover.examples import examples, read_source
from core.recover.examples import needed as wanted
from core.runs import company
from core.runs.artifacts import read_spec
from core.spec.nuteprune import Settings
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from core.stages.work import Work, add_facts

_GIB = 2**30


def check_needs(work: Work, loaded: Loaded, graph: Graph) -> None:
    """Fit a method that trains into memory, and see whether what trains after it has its data.

    Raises:
        SpecError: less memory is free than the training takes. DataError: too few sequences to train on.
    """
    method, recipe = method_of(work.spec), work.spec.recover
    if method is None:
        return
    settings = method.settings(work.spec.prune.options)
    precision = multiplied_in(settings.precision, loaded.device)
    every = of_masks(settings, work.spec.calibration.length, precision, company.size())
    if not _noted(read_spec(work.run_dir), method.name):
        way = _fit(work, loaded, graph, every)
        _note(work, method.name, way, precision, accumulate=way.parts, processes=company.size())
    if recipe.method != "none":
        source = read_source(recipe.data, wanted(recipe), recipe.length, work.spec.data_dir)
        examples(loaded.tokenizer, source, length=recipe.length, held=recipe.held, seed=work.spec.seed)


def fitted_settings(run_dir: Path) -> Settings:
    """The options of a run's method that trains, as fitted into memory. Raises ArtifactError."""
    spec = read_spec(run_dir)
    method = method_of(spec)
    assert method is not None, "a method that trains is what asks"
    return replace(method.settings(spec.prune.options), **_noted(spec, method.name))


def fitted_recipe(work: Work, loaded: Loaded, graph: Graph, name: str) -> RecoverSpec:
    """How a model is trained after the cut, fitted into memory. Raises SpecError where that cannot be.

    Args:
        name: of this training, of which a run may have several.
    """
    recipe = work.spec.recover
    precision = multiplied_in(recipe.precision, loaded.device)
    every = of_recipe(recipe, precision, company.size())
    if not _noted(read_spec(work.run_dir), name):
        way = _fit(work, loaded, graph, every)
        share = recipe.batch // company.size()
        _note(work, name, way, precision, micro_batch=share // way.parts)
    return noted_recipe(work, name)


def noted_recipe(work: Work, name: str) -> RecoverSpec:
    """How a model is trained after the cut, as it was fitted into memory when that began."""
    # One that was fitted before there was a choice of precision began in float32.
    noted = {"precision": "no", **_noted(read_spec(work.run_dir), name)}
    return replace(work.spec.recover, **noted)


def _fit(work: Work, loaded: Loaded, graph: Graph, every: Mapping[Way, Taken]) -> Way:
    """The first way that memory holds, and word of it. Raises SpecError."""
    free, shapes, itemsize = free_memory(loaded.device), _shapes(loaded, graph), loaded.dtype.itemsize
    held = _held(loaded)
    freed = {way.shards: freed_bytes(shapes, way.shards, itemsize, held) for way in every}
    sizes = {way: needed_bytes(shapes, taken, itemsize) for way, taken in every.items()}
    first = next(iter(every))
    way = next((way for way in every if sizes[way] <= free + freed[way.shards]), None)
    if way is None:
        least = min(sizes[way] - freed[way.shards] for way in every)
        raise SpecError(
            f"{_needs(sizes[first], free)} on {loaded.device}, and {least / _GIB:.1f} GiB in any way; "
            "take shorter sequences, a smaller model, another device, or several (--processes)."
        )
    instead = "" if way is first else f"; {first.words} would take {sizes[first] / _GIB:.1f} GiB"
    products = ", products of matrices in bfloat16" if every[way].precision == "bf16" else ""
    frees = f", which frees {max(0, freed[way.shards]) / _GIB:.1f} GiB" if way.shards > 1 else ""
    work.recorder.message(f"{_needs(sizes[way], free)}: {way.words}{frees}{products}{instead}")
    return way


def _held(loaded: Loaded) -> int:
    """Bytes of the weights that are on the device that trains."""
    spread, values = spread_of(loaded.model), loaded.model.named_parameters()
    here = [each for name, each in values if spread is None or spread.place(name) == spread.main]
    return sum(each.numel() * each.element_size() for each in here)


def _shapes(loaded: Loaded, graph: Graph) -> Shapes:
    """The sizes of a model as it is by now."""
    return shapes_of(graph, {name: tuple(each.shape) for name, each in loaded.model.named_parameters()})


def _needs(size: int, free: int) -> str:
    return f"Training needs about {size / _GIB:.1f} GiB beside the model, and {free / _GIB:.1f} GiB are free"


def _note(work: Work, training: str, way: Way, precision: str, **parts: int) -> None:
    """Write down how this training goes, by the names of its options."""
    choice = {**parts, "gradient_checkpointing": way.checkpointing, "precision": precision}
    choice |= {"shard_weights": "on"} if way.shards > 1 else {}
    noted = read_spec(work.run_dir).extra.get(FITTED, {})
    add_facts(work, **{FITTED: {**noted, training: choice}})


def _noted(spec: RunSpec, training: str) -> dict[str, Any]:
    """The choice that a run goes on with; empty where none was made yet."""
    return dict(spec.extra.get(FITTED, {}).get(training, {}))
