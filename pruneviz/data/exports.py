"""What a run left, as other tools see it, and what was made of it for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from core.errors import ArtifactError
from core.files import read_record, reading, there
from core.graph.records import Graph
from core.plan.cost import stored_sizes
from core.plan.records import PruningPlan
from core.results.exported import Exported, read_exported
from core.runs.artifacts import GROUPS, MODEL, PLAN
from core.ship.records import Subject, Verdict, subject_of
from core.ship.routes import verdicts
from pruneviz.data.cards import local_folder
from pruneviz.data.contenders import left_a_model
from pruneviz.data.runs import RunRecord, source_key

#: Of a file for llama.cpp, before it is padded.
PACKINGS = ("f16", "q8_0")


def source_of(record: RunRecord, records: Sequence[RunRecord]) -> RunRecord | None:
    """The run whose result this is about: itself, or of an export the run that was exported; else None."""
    if record.spec is None or record.spec.goal != "export":
        return record if left_a_model(record) and not record.example else None
    of = source_key(record.model)
    return next((other for other in records if str(other.path.absolute()) == of), None)


def exports_of(record: RunRecord, records: Sequence[RunRecord]) -> dict[str, RunRecord]:
    """Format -> the newest export of this run in it."""
    newest: dict[str, RunRecord] = {}
    own = str(record.path.absolute())
    for other in records:
        if other.spec and other.spec.goal == "export" and source_key(other.model) == own:
            newest.setdefault(other.spec.export.to, other)
    return newest


def written(record: RunRecord) -> Exported | None:
    """What an export wrote, or None until it has. Raises ArtifactError if that is damaged."""
    return read_exported(record.path) if record.state == "finished" else None


def on_paper(record: RunRecord) -> tuple[Subject, dict[str, Verdict], dict[str, int]]:
    """A run's result, what can be said of every way to run it, and its bytes in `PACKINGS`.

    Raises:
        ArtifactError: a file of it is missing or damaged.
    """
    folder = record.path / MODEL
    try:
        with reading(folder / PLAN, "run it again"):
            return _on_paper(folder, tuple((folder / name).stat().st_mtime_ns for name in (PLAN, GROUPS)))
    except (IndexError, ArithmeticError) as error:
        raise ArtifactError(f"The plan in {folder} does not fit its groups; run it again.") from error


@lru_cache(maxsize=4)
def _on_paper(folder: Path, stamps: tuple[int, ...]) -> tuple[Subject, dict[str, Verdict], dict[str, int]]:
    subject = subject_of(folder)
    plan = subject.plan
    sizes = stored_sizes(subject.graph, plan.removed, PACKINGS, plan.biases)
    return subject, verdicts(subject), sizes


def config_of(source: str) -> dict[str, Any] | None:
    """The dense model's `config.json`, from its files or the hub's cache; None where neither has it.

    A model that is pruned already has none here: what is left of it after another cut is not known on paper.
    """
    folder = local_folder(source)
    if folder is not None and there(folder / PLAN):
        return None
    cached = None if folder else _in_cache(source)
    path = folder / "config.json" if folder else Path(cached).resolve() if cached else None
    try:
        return read_record(path, dict[str, Any]) if path else None
    except ArtifactError:
        return None


def _in_cache(source: str) -> str | None:
    """Where the hub's cache has a model's config."""
    try:
        path = try_to_load_from_cache(source, "config.json")
    except HFValidationError:
        return None
    return path if isinstance(path, str) else None


def expected(graph: Graph, plan: PruningPlan, config: Mapping[str, Any]) -> dict[str, Verdict]:
    """What can be said of a plan before it is carried out; empty where its config does not say enough."""
    try:
        return verdicts(Subject(graph, plan, config))
    except (KeyError, ValueError, TypeError, LookupError, ArithmeticError):
        return {}


def weights_bytes(record: RunRecord) -> int:
    """How large the weights are that a run saved."""
    return sum(path.stat().st_size for path in (record.path / MODEL).glob("*.safetensors"))
