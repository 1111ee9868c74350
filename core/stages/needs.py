"""What a training needs, against what there is: fitted, said, or refused, before anything is measured."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.devices.memory import free_memory
from core.errors import SpecError
from core.graph.records import Graph
from core.methods import FITTED, method_of
from core.models.load import Loaded
from core.recover.examples import examples, read_source
from core.recover.examples import needed as wanted
from core.recover.memory import Taken, freed_bytes, needed_bytes
from core.recover.team import multiplied_in
from core.runs import company
from core.runs.artifacts import read_spec
from core.spec.nuteprune import Settings
from core.spec.recover import WEIGHTS, RecoverSpec
from core.spec.run import RunSpec
from core.stages.work import Work, add_facts

_GIB = 2**30
#: What going through the model once more costs, in tokens; and what to compute the layers again does.
_PART, _AGAIN = 256, 1 / 3


@dataclass(frozen=True)
class Way:
    """How a training goes through its batches: in how many parts, and whether layers forget their inside.

    Attributes:
        shards: processes over which the weights that are not trained are sharded; 1 for none.
    """

    parts: int
    recompute: bool
    shards: int = 1

    @property
    def words(self) -> str:
        """What it does, for people."""
        parts = f"batches in {self.parts} parts" if self.parts > 1 else "whole batches"
        again = ", layers computed again on the way back" if self.recompute else ""
        return parts + again + (f", frozen weights sharded over {self.shards}" if self.shards > 1 else "")

    @property
    def checkpointing(self) -> str:
        """The option `gradient_checkpointing` that asks for it."""
        return "on" if self.recompute else "off"


def ways(
    share: int, least: int, tokens: int, checkpointing: str, sharding: str = "off", processes: int = 1
) -> list[Way]:
    """What may be done about memory, the quickest first, that asked for before all; all learn the same.

    Args:
        share: sequences of a batch that this process reads; least: parts asked for.
        tokens: in a sequence; checkpointing: the option `gradient_checkpointing`.
        sharding: the option `shard_weights`, which is for several processes.
    """

    def cost(way: Way) -> tuple[int, float]:
        # every part gathers all weights once more, twice with the way back
        return way.shards, (1 + _AGAIN * way.recompute) * (share * tokens + _PART * way.parts)

    switch = {"auto": (False, True), "on": (True,), "off": (False,)}
    shards = dict.fromkeys(processes if on else 1 for on in switch[sharding])
    parts = [number for number in range(least, share + 1) if share % number == 0]
    every = itertools.product(parts, switch[checkpointing], shards)
    return sorted((Way(*way) for way in every), key=cost)


def check_needs(work: Work, loaded: Loaded, graph: Graph) -> None:
    """Fit a method that trains into memory, and see whether what trains after it has its data.

    Raises:
        SpecError: less memory is free than the training takes. DataError: too few sequences to train on.
    """
    method, recipe = method_of(work.spec), work.spec.recover
    if method is None:
        return
    settings = method.settings(work.spec.prune.options)
    length, share = work.spec.calibration.length, settings.batch // company.size()
    precision = multiplied_in(settings.precision, loaded.device)

    def taken(way: Way) -> Taken:
        return Taken(
            share // way.parts * length, way.recompute, settings.lora_rank, settings.lora_targets,
            copies=2,  # the student's and the teacher's
            logits=3,  # the student's, the teacher's, and what the divergence makes of them
            layers=3 * (settings.layer_weight > 0), models=int(settings.distillation == "second_model"),
            precision=precision, shards=way.shards,
        )  # fmt: skip

    every = ways(
        share, -(-share // settings.part), length, settings.gradient_checkpointing,
        settings.shard_weights, company.size(),
    )  # fmt: skip
    if not _noted(read_spec(work.run_dir), method.name):
        way = _fit(work, loaded, graph, every, taken)
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
    whole, live = recipe.targets == WEIGHTS, recipe.distils and not recipe.top_k
    share = recipe.batch // company.size()
    precision = multiplied_in(recipe.precision, loaded.device)

    def taken(way: Way) -> Taken:
        return Taken(
            share // way.parts * recipe.length, way.recompute, recipe.rank, recipe.targets,
            copies=1 if whole else 2,  # the best so far
            logits=3 if recipe.distils else 2,
            layers=3 * (recipe.layer_weight > 0), models=int(live), whole=whole, precision=precision,
            shards=way.shards,
        )  # fmt: skip

    least, sharding = -(-share // recipe.micro_batch), "off" if whole else recipe.shard_weights
    every = ways(share, least, recipe.length, recipe.gradient_checkpointing, sharding, company.size())
    if not _noted(read_spec(work.run_dir), name):
        way = _fit(work, loaded, graph, every, taken)
        _note(work, name, way, precision, micro_batch=share // way.parts)
    return noted_recipe(work, name)


def noted_recipe(work: Work, name: str) -> RecoverSpec:
    """How a model is trained after the cut, as it was fitted into memory when that began."""
    # One that was fitted before there was a choice of precision began in float32.
    noted = {"precision": "no", **_noted(read_spec(work.run_dir), name)}
    return replace(work.spec.recover, **noted)


def _fit(work: Work, loaded: Loaded, graph: Graph, every: list[Way], taken: Callable[[Way], Taken]) -> Way:
    """The first way that memory holds, and word of it. Raises SpecError."""
    free = free_memory(loaded.device)
    freed = {way.shards: freed_bytes(loaded.model, graph, way.shards) for way in every}
    sizes = {way: needed_bytes(loaded.model, graph, taken(way)) for way in every}
    way = next((way for way in every if sizes[way] <= free + freed[way.shards]), None)
    if way is None:
        least = min(sizes[way] - freed[way.shards] for way in every)
        raise SpecError(
            f"{_needs(sizes[every[0]], free)} on {loaded.device}, and {least / _GIB:.1f} GiB in any way; "
            "take shorter sequences, a smaller model, another device, or several (--processes)."
        )
    instead = "" if way is every[0] else f"; {every[0].words} would take {sizes[every[0]] / _GIB:.1f} GiB"
    products = ", products of matrices in bfloat16" if taken(way).precision == "bf16" else ""
    frees = f", which frees {freed[way.shards] / _GIB:.1f} GiB" if way.shards > 1 else ""
    work.recorder.message(f"{_needs(sizes[way], free)}: {way.words}{frees}{products}{instead}")
    return way


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
