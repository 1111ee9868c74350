"""What a run is asked to do: frozen dataclasses, JSON in and out, checked on construction."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from core.errors import SpecError
from core.spec.checks import require as _require
from core.spec.checks import require_whole as _require_whole
from core.spec.evaluate import EvalSpec
from core.spec.explore import ExploreSpec
from core.spec.model import DataSpec, ModelSpec
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.sweep import SweepSpec

Goal = Literal["explore", "prune", "recover", "evaluate", "sweep"]


@dataclass(frozen=True)
class RunSpec:
    """One run, whole. `name` is for people; `extra` records the data's hash and library versions."""

    goal: Goal = "prune"
    name: str = ""
    seed: int = 0
    model: ModelSpec = field(default_factory=ModelSpec)
    calibration: DataSpec = field(default_factory=DataSpec)
    explore: ExploreSpec = field(default_factory=ExploreSpec)
    prune: PruneSpec = field(default_factory=PruneSpec)
    recover: RecoverSpec = field(default_factory=RecoverSpec)
    evaluate: EvalSpec = field(default_factory=EvalSpec)
    sweep: SweepSpec = field(default_factory=SweepSpec)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        goals = get_args(Goal)
        _require(self.goal in goals, "goal", self.goal, f"one of {', '.join(goals)}")
        _require_whole("seed", self.seed, 0)
        alone = not self.prune.without_dependency or self.recover.method == "none"
        _require(alone, "without_dependency", True, "left out where the model is trained: it saves none")
        trains = self.goal != "recover" or self.recover.method != "none"
        _require(trains, "recover", self.recover.method, "a way to train, e.g. lora")

    @property
    def prunes(self) -> bool:
        """Whether `prune` says what goes, once or at every point of a sweep."""
        return self.goal in ("prune", "sweep")

    def to_json(self) -> str:
        """One JSON document, as in `spec.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> RunSpec:
        """Read a spec. Raises SpecError on anything that is no spec, naming the field."""
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise SpecError(
                f"This is no spec: {error}; give the JSON that a run keeps as spec.json."
            ) from error
        return _build(cls, raw, "spec")


_PARTS: dict[str, Any] = {
    "model": ModelSpec,
    "calibration": DataSpec,
    "explore": ExploreSpec,
    "prune": PruneSpec,
    "recover": RecoverSpec,
    "evaluate": EvalSpec,
    "sweep": SweepSpec,
}


def _build(cls: Any, raw: Any, where: str) -> Any:
    if not isinstance(raw, dict):
        raise SpecError(f"{where} must be a JSON object, got {raw!r}.")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    stray = sorted(set(raw) - set(fields))
    if stray:
        raise SpecError(f"{where} has no field {', '.join(map(repr, stray))}; it has {', '.join(fields)}.")
    values = {}
    for key, value in raw.items():
        if cls is RunSpec and key in _PARTS:
            value = _build(_PARTS[key], value, key)
        elif isinstance(value, list):
            value = tuple(value)
        values[key] = value
    try:
        return cls(**values)
    except (TypeError, AttributeError) as error:
        raise SpecError(f"{where} does not fit: {error}.") from error
