"""The New run form: what its fields hold -> a RunSpec, and back.

A form is a dict: dotted path of a field of the spec -> what its component holds. Three fields belong to
methods that train: `preset`, `steps`, and `prune.options` as JSON: what differs from the preset, or from the
defaults of a criterion. `recipe` names how what is left is trained, and `rest` has as JSON what has no field
but was asked for by a recipe, a preset or a run that was cloned.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from core.errors import SpecError
from core.methods import METHODS, preset_of
from core.option import Option, options_of
from core.registry import unknown
from core.runs.command_line import TAKES
from core.spec.efforts import SAYS, with_effort
from core.spec.fields import OPTIONS, changed, field_of
from core.spec.model import ModelSpec
from core.spec.prune import ALLOCATION
from core.spec.recover import WEIGHTS, RecoverSpec, recipe_of, recover_preset
from core.spec.run import RunSpec
from core.spec.settings import parse_setting
from core.spec.units import MANUAL
from pruneviz.data import methods

OWN = "prune.options"
#: More make no number that anything is counted by.
_DIGITS = 15
#: Paths of the fields with a label, and what methods that train are asked for besides.
_OF_SPEC = tuple(path for path in OPTIONS if OPTIONS[path].title and path in TAKES["prune"])
REST = "rest"
FIELDS = (*_OF_SPEC, OWN, "preset", "steps", "recipe", REST)
#: What is not asked of a method that trains, and what follows from units that are chosen by hand.
OF_RANKING = tuple(path for path in _OF_SPEC if OPTIONS[path].ranking)
_FROM_UNITS = tuple(f"prune.{name}" for name in ALLOCATION)
#: What a preset fills in; the rest of what it asks for has no field.
FILLED = (
    "steps", OWN, "prune.sparsity", "prune.kinds",
    "calibration.name", "calibration.samples", "calibration.length", "recover.method", "recover.data", REST,
)  # fmt: skip
#: What an effort fills in.
OF_EFFORTS = (*SAYS, OWN, "preset", "steps", "recipe", "recover.method", REST)
Form = dict[str, Any]


def form_of(values: Iterable[Any]) -> Form:
    """The form whose components hold these values, in the order of `FIELDS`."""
    return dict(zip(FIELDS, values, strict=True))


def spec_from(model: ModelSpec, form: Mapping[str, Any]) -> RunSpec:
    """What the form asks for. Raises SpecError, naming the field."""
    method = form["prune.method"]
    passed = ["prune.units"] if method != MANUAL else [*_FROM_UNITS]
    passed += OF_RANKING if methods.trains(method) else []
    asked = {path: read(path, form[path]) for path in _OF_SPEC if path not in passed}
    if method == MANUAL and not asked["prune.units"]:
        raise SpecError("No unit is chosen; choose some on the Structure tab, or write L03.query_head=0-3,7.")
    asked[OWN] = _options(form) if method != MANUAL else {}
    asked |= {path: _plain(path, value) for path, value in json.loads(form[REST] or "{}").items()}
    spec = changed(RunSpec(model=model), asked)
    if methods.trains(method):
        entry = METHODS[method]
        entry.component.check(spec.prune, entry.settings(spec.prune.options))
    methods.check_scope(method, spec.prune.scope)
    return spec


def _options(form: Mapping[str, Any]) -> dict[str, Any]:
    """The method's own options; those of a training start from its preset. Raises SpecError."""
    method, told = form["prune.method"], json.loads(form[OWN] or "{}")
    options = {name: parse_setting(said) if isinstance(said, str) else said for name, said in told.items()}
    if methods.trains(method):
        entry, preset = METHODS[method], form["preset"] or METHODS[method].component.preset
        if preset not in entry.component.presets:
            raise unknown(f"preset of {method}", preset, list(entry.component.presets))
        options = {**entry.component.presets[preset].get(OWN, {}), **options}
        steps = form["steps"]
        steps = None if steps in (None, "") else typed(entry.options["steps"], steps)
        if steps is not None and steps != entry.settings(options).steps:
            options["steps"] = steps
    methods.check(method, options)
    return options


def read(path: str, held: Any) -> Any:
    """The value of a field from what its component holds. Raises SpecError."""
    return typed(OPTIONS[path], held)


def typed(option: Option, held: Any) -> Any:
    """The value of an option from what its component holds. Raises SpecError.

    Where nothing is written in a text box, that is an empty value or the default.
    """
    if option.kind is tuple and not isinstance(held, str | None):
        return tuple(held)
    if option.kind is int and isinstance(held, float):
        held = f"{held:.{_DIGITS}g}"
    if isinstance(held, bool | float | dict):
        return held
    text = "" if held is None else str(held).strip()
    if not text and (option.optional or option.kind is str):
        return option.value
    if option.kind is not int or option.parse is not None:
        return option.read(text)
    whole = text.isdecimal() and len(text) <= _DIGITS
    if not whole or (option.least and int(text) < option.least[0]):
        raise SpecError(f"{option.spoken} must be {option.accepted()}, got {text or 'nothing'}.")
    return int(text)


def held(path: str, value: Any) -> Any:
    """What the component of a field holds for a value."""
    option = OPTIONS[path]
    if option.kind is tuple and option.choices:
        return list(value)
    if value is None:
        return ""
    if option.kind is bool:
        return value
    return str(value).removesuffix(".0") if option.kind is float else " ".join(option.typed(value))


def form_from(spec: RunSpec) -> Form:
    """The form that asks for this run again."""
    form = {path: held(path, field_of(spec, path)) for path in _OF_SPEC}
    own, form["preset"], form["steps"] = spec.prune.options, None, None
    if preset := preset_of(spec):
        start = training_start(spec.prune.method, preset.name)
        own = {name: value for name, value in preset.beside.items() if name != "steps"}
        form |= {"preset": preset.name, "steps": preset.beside.get("steps", start["steps"])}
    form[OWN] = json.dumps(own) if own else ""
    usual, form["recipe"] = RunSpec(), recipe_of(spec.recover)
    asked = {path: field_of(spec, path) for path in TAKES["prune"]}
    form[REST] = _rest({path: value for path, value in asked.items() if value != field_of(usual, path)})
    return {path: form[path] for path in FIELDS}


def training_start(method: str, preset: str) -> Form:
    """What a preset puts into the form: `steps`, no options beside it, windows, and what else it says."""
    entry = METHODS[method]
    changes = entry.component.presets[preset]
    steps = entry.settings(changes.get(OWN, {})).steps
    said = {path: changes[path] for path in FILLED if path in changes and path != OWN}
    windows = {path: OPTIONS[path].value for path in ("calibration.samples", "calibration.length")}
    rest = {REST: text} if (text := _rest(changes)) else {}
    filled = {path: held(path, value) for path, value in (windows | said).items()}
    return {**filled, **rest, "steps": steps, OWN: ""}


def effort_start(name: str, rest: str) -> Form:
    """What an effort puts into the form; of `rest` what is no training stays."""
    form = form_from(with_effort(RunSpec(), name))
    asked = _without_training(rest) | json.loads(form[REST] or "{}")
    return {path: form[path] for path in OF_EFFORTS} | {REST: _rest(asked)}


def recipe_start(name: str, rest: str, method: str = "") -> Form:
    """What a recipe puts into the form, in the place of the one before.

    Args:
        rest: what the form holds; method: how to train, as it stands in the form.
    """
    recipe, usual = recover_preset(name), RecoverSpec()
    own = {f"recover.{each}": getattr(recipe, each) for each in options_of(RecoverSpec)}
    own = {p: value for p, value in own.items() if value != getattr(usual, p.partition(".")[2])}
    method = recipe.method if method in ("", "none") or recipe.targets == WEIGHTS else method
    rest = _rest(_without_training(rest) | own)
    return {"recipe": name, "recover.method": method, "recover.data": recipe.data, REST: rest}


def _without_training(rest: str) -> Form:
    """What the form asks for beside its fields, without what says how to train."""
    return {path: v for path, v in json.loads(rest or "{}").items() if not path.startswith("recover.")}


def _rest(asked: Mapping[str, Any]) -> str:
    """What is asked for and has no field, as JSON; empty for nothing."""
    rest = {path: value for path, value in asked.items() if path not in FIELDS}
    return json.dumps(rest) if rest else ""


def _plain(path: str, value: Any) -> Any:
    return tuple(value) if OPTIONS[path].kind is tuple else value
