"""What a training needs, against what there is: said, or refused, before anything is measured."""

from __future__ import annotations

from dataclasses import replace

from core.errors import SpecError
from core.graph.records import Graph
from core.methods import method_of
from core.models.load import Loaded
from core.nuteprune.memory import free_bytes, needed_bytes
from core.recover.examples import examples, read_source
from core.recover.examples import needed as wanted
from core.spec.nuteprune import Settings
from core.stages.work import Work

_GIB = 2**30


def check_needs(work: Work, loaded: Loaded, graph: Graph) -> None:
    """Whether a method that trains has the memory it needs, and what trains after it has its data.

    Raises:
        SpecError: less memory is free than the training takes. DataError: too few sequences to train on.
    """
    method, recipe = method_of(work.spec), work.spec.recover
    if method is None:
        return
    settings = method.settings(work.spec.prune.options)
    length = work.spec.calibration.length
    needed, free = needed_bytes(loaded.model, graph, settings, length), free_bytes(loaded.device)
    both = f"about {needed / _GIB:.1f} GiB beside the model, and {free / _GIB:.1f} GiB are free"
    if needed > free:
        raise SpecError(
            f"Training needs {both} on {loaded.device}. {_instead(loaded, graph, settings, length)}"
        )
    work.recorder.message(f"Training needs {both}")
    if recipe.method != "none":
        source = read_source(recipe.data, wanted(recipe), recipe.length, work.spec.data_dir)
        examples(loaded.tokenizer, source, length=recipe.length, held=recipe.held, seed=work.spec.seed)


def _instead(loaded: Loaded, graph: Graph, settings: Settings, length: int) -> str:
    """What would fit: fewer windows at a time, or nothing that is only an option."""
    share, free = settings.batch // settings.processes, free_bytes(loaded.device)
    for parts in (parts for parts in range(settings.accumulate + 1, share + 1) if share % parts == 0):
        if needed_bytes(loaded.model, graph, replace(settings, accumulate=parts), length) <= free:
            return f"Split every batch with --set accumulate={parts}, which learns the same."
    return "A single window does not fit; take shorter ones with --length, or a smaller model."
