"""One run at work, and what is written down of it beside its artifacts."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from core.criteria import CRITERIA
from core.errors import ArtifactError
from core.files import write_text
from core.methods import method_of
from core.models.texts import NONE, SELF, calibration_text, evaluation_text, same_text
from core.runs.artifacts import SPEC, read_metrics, read_spec
from core.runs.recorder import Recorder
from core.spec.run import RunSpec
from core.spec.units import MANUAL

T = TypeVar("T")
LIBRARIES = ("torch", "transformers", "safetensors", "tokenizers", "numpy")


@dataclass(frozen=True)
class Work:
    """One run at work: what was asked, where it is written, who is told."""

    spec: RunSpec
    run_dir: Path
    recorder: Recorder


def kept(read: Callable[[Path], T], run_dir: Path) -> T | None:
    """An artifact from before the run was interrupted; None if it is missing or damaged."""
    try:
        return read(run_dir)
    except ArtifactError:
        return None


def record_facts(work: Work) -> None:
    """Add library versions and the hashes of the texts to `spec.json`."""
    spec = work.spec
    evaluation = evaluation_text(spec.evaluate.text)
    facts: dict[str, Any] = {name: metadata.version(name) for name in LIBRARIES}
    extra: dict[str, Any] = {"versions": {"python": platform.python_version(), **facts}}
    extra["evaluation"] = {"name": evaluation.name, "sha256": evaluation.sha256}
    if spec.goal in ("explore", "prune", "sweep") and spec.calibration.name not in (SELF, NONE):
        calibration = calibration_text(spec.calibration.name)
        extra["calibration"] = {"name": calibration.name, "sha256": calibration.sha256}
        if spec.prunes and reads_text(spec) and same_text(calibration, evaluation):
            work.recorder.message(
                "Warning: calibration and evaluation read the same text, so the perplexity is no result."
            )
    add_facts(work, **extra)


def add_facts(work: Work, **facts: Any) -> None:
    """Add to what `spec.json` records in `extra`."""
    spec = read_spec(work.run_dir)
    if any(spec.extra.get(name) != fact for name, fact in facts.items()):
        write_text(work.run_dir / SPEC, replace(spec, extra={**spec.extra, **facts}).to_json())


def needs(names: Sequence[str]) -> set[str]:
    """The statistics these criteria read; units chosen by hand need none."""
    return {statistic for name in names if name != MANUAL for statistic in CRITERIA[name].needs}


def reads_text(spec: RunSpec) -> bool:
    """Whether what goes in a pruning run or a sweep depends on the calibration text."""
    ranking = spec.sweep.methods if spec.goal == "sweep" else [spec.prune.method]
    return method_of(spec) is not None or bool(needs(ranking))


def source_metrics(work: Work) -> dict[str, Any]:
    """`metrics.json` of the run whose result this run started from; empty if there is none."""
    try:
        return read_metrics(Path(work.spec.model.source))
    except ArtifactError:
        return {}
