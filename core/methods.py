"""Methods that train what they prune, beside the criteria that rank. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from core.registry import Entry, Registry, unknown
from core.spec.fields import changed, field_of
from core.spec.nuteprune import NutePrune, Settings
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec


class Method(Protocol):
    """A method that trains, as people ask for it; a stage of the same name runs it.

    Attributes:
        presets: name -> what a preset changes of a spec, by dotted path.
        preset: the preset that is taken where none is named.
    """

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]: ...

    @property
    def preset(self) -> str: ...

    def check(self, prune: PruneSpec, settings: Any) -> None:
        """Raises SpecError where the options do not fit together, or not with what is asked."""

    def start_from(self, options: Mapping[str, Any]) -> str | None:
        """The criterion whose scores it starts from, or None."""

    def start_scope(self, options: Mapping[str, Any]) -> str:
        """What those scores are compared by: `al_am` has scores of its own."""

    def start_samples(self, options: Mapping[str, Any]) -> int:
        """How many of the calibration windows that criterion reads."""

    def apart(self, options: Mapping[str, Any]) -> int:
        """How many windows of the calibration text it keeps apart, beside those it trains on."""


#: Where `spec.json` keeps how a training was fitted into memory, under `extra`: a resumed one goes on alike.
FITTED = "fitted"
METHODS: Registry[Method] = Registry("method")
METHODS.register(
    "nuteprune",
    paper="arXiv:2402.09773",
    equation="Eq. 3-11, Section 3.2",
    needs=("text",),
    summary="Learns which units go, under a sparsity target, while LoRA learns to do without them. Numerous "
    "teachers of rising sparsity, all the same weights with other masks, show the way.",
    options=Settings,
)(NutePrune())


def method_of(spec: RunSpec) -> Entry[Method] | None:
    """The method that trains in this run, or None where units are ranked or chosen by hand."""
    names = METHODS.names() if spec.goal == "prune" else []
    return METHODS[spec.prune.method] if spec.prune.method in names else None


def processes_of(spec: RunSpec) -> int:
    """How many processes the trainings of a run are to share, as its options say."""
    return max((settings.processes for settings in _trainings(spec)), default=1)


def trained_by(spec: RunSpec) -> int:
    """How many processes learn what goes: as that was fitted into memory, or as the options say."""
    noted = spec.extra.get(FITTED, {}).get(spec.prune.method, {})
    return int(noted.get("processes", processes_of(spec)))


def shards(spec: RunSpec) -> bool:
    """Whether some training of a run is to shard its frozen weights in any case."""
    return any(settings.shard_weights == "on" for settings in _trainings(spec))


def batches_of(spec: RunSpec) -> list[int]:
    """How many sequences a step reads, in every training of a run."""
    return [settings.batch for settings in _trainings(spec)]


def _trainings(spec: RunSpec) -> list[Any]:
    """The settings of every training of a run: of what goes, then of what is left."""
    method, recipe = method_of(spec), spec.recover
    learning = [method.settings(spec.prune.options)] if method else []
    recovers = spec.goal in ("prune", "recover") and recipe.method != "none"
    return [*learning, *([recipe] if recovers else [])]


def criteria_of(spec: RunSpec) -> list[str]:
    """The criteria a run scores with, each once."""
    if spec.goal == "prune":
        method = method_of(spec)
        name = method.component.start_from(spec.prune.options) if method else spec.prune.method
        return [] if spec.prune.units or name is None else [name]
    if spec.goal == "sweep":
        recipes = spec.sweep.recipes(lent=spec.model.lent)
        return list(dict.fromkeys(recipe.method for recipe in recipes))
    asked = list(spec.explore.criteria) if "scores" in spec.explore.analyses else []
    if "sensitivity" in spec.explore.analyses:
        asked.append(spec.explore.sensitivity_criterion)
    return list(dict.fromkeys(asked)) if spec.goal == "explore" else []


def criteria_options(spec: RunSpec) -> dict[str, Any]:
    """The criteria's own options, as they were given."""
    return spec.prune.options if spec.prunes else spec.explore.options


def with_preset(spec: RunSpec, name: str, preset: str | None, steps: int | None) -> RunSpec:
    """A spec that asks for a method with a preset of its own.

    Args:
        preset: None takes the method's own, unless the spec asks for this method already.

    Raises:
        UnknownNameError: no such preset.
    """
    method = METHODS[name].component
    if preset is None and spec.prune.method != name:
        preset = method.preset
    if preset is not None and preset not in method.presets:
        raise unknown(f"preset of {name}", preset, list(method.presets))
    changes = dict(method.presets[preset]) if preset is not None else {}
    options = {**changes.get("prune.options", spec.prune.options)}
    if steps is not None:
        options["steps"] = steps
    return changed(spec, {**changes, "goal": "prune", "prune.method": name, "prune.options": options})


def describe(entry: Entry[Method]) -> dict[str, Any]:
    """The entry as a JSON object, with its presets."""
    presets = {name: dict(changes) for name, changes in entry.component.presets.items()}
    return {**entry.describe(), "trains": True, "presets": presets, "preset": entry.component.preset}


class Preset(NamedTuple):
    """A preset, and the options that a spec asks for beside it: option -> value."""

    name: str
    beside: dict[str, Any]


def preset_of(spec: RunSpec) -> Preset | None:
    """The preset of the spec's method that leaves least to be said beside it; None where nothing trains.

    Of two that leave as much it is the one that says more.
    """
    entry = method_of(spec)
    if entry is None:
        return None
    presets = entry.component.presets
    beside = {name: _beside(spec, entry, changes) for name, changes in presets.items()}
    others = {
        name: sum(field_of(spec, path) != value for path, value in changes.items() if path != "prune.options")
        for name, changes in presets.items()
    }
    nearest = min(presets, key=lambda name: (len(beside[name]) + others[name], -len(presets[name])))
    return Preset(nearest, beside[nearest])


def _beside(spec: RunSpec, entry: Entry[Method], changes: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the preset, as it stands in the spec: a kept run may hold what is no longer taken."""
    defaults = {name: option.value for name, option in entry.options.items()}
    preset = {**defaults, **changes.get("prune.options", {})}
    given = {**defaults, **spec.prune.options}
    return {name: value for name, value in given.items() if name not in preset or value != preset[name]}
