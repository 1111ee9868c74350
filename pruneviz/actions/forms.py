"""The New run form: what is typed -> a RunSpec, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from core.errors import SpecError
from core.methods import METHODS, preset_of
from core.registry import unknown
from core.spec.checks import parse_kind_sparsity, parse_sparsity
from core.spec.evaluate import EvalSpec
from core.spec.model import DataSpec, ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.spec.units import MANUAL
from pruneviz.data import methods
from pruneviz.data.selection import text_of, units_of

#: Unit kinds as the form names them.
KIND_WORDS = {
    "Query heads": "query_head",
    "Key-value groups": "kv_group",
    "Feed-forward channels": "ffn_channel",
    "Hidden channels": "residual_channel",
}

#: How a target is spread, as the form names it.
SCOPE_WORDS = {
    "Every layer alike": "local",
    "By worth per parameter": "global",
    "By how units stand out": "standardised",
}
#: What is refitted without training.
RECONSTRUCT_WORDS = {
    "Nothing": "none", "Biases": "bias", "Weights, by least squares": "least_squares",
    "Weights, before units are chosen anew": "pre_pruning",
}  # fmt: skip
MULTIPLES = ("1", "8", "32", "64", "128")

#: Fields that are empty, not missing, where nothing was typed.
_TEXTS = ("name", "sparsity", "layers", "kind_sparsity", "calibration", "text", "units", "options")


@dataclass(frozen=True)
class Form:
    """The fields in the order they stand on the page, as people fill them in.

    `preset` and `steps` are of methods that train; `options` is a JSON object: what differs from the preset,
    or from the defaults of a criterion.
    """

    name: str = ""
    method: str = "taylor_first"
    sparsity: str = "0.2"
    kinds: tuple[str, ...] = ("Query heads", "Feed-forward channels")
    layers: str = ""
    calibration: str = "bundled"
    samples: float | None = 16
    length: float | None = 128
    text: str = "bundled"
    seed: float | None = 0
    units: str = ""
    scope: str = "Every layer alike"
    reconstruct: str = "Nothing"
    multiple: str = "1"
    kind_sparsity: str = ""
    preset: str | None = None
    steps: float | None = None
    options: str = ""

    def values(self) -> list[Any]:
        """The fields' values, in order."""
        return [list(v) if isinstance(v, tuple) else v for v in self.__dict__.values()]


def spec_from(model: ModelSpec, *values: Any) -> RunSpec:
    """What the form asks for. Raises SpecError, naming the field."""
    form = Form(*_typed(values))
    return RunSpec(
        goal="prune",
        name=form.name.strip(),
        seed=_whole("seed", form.seed),
        model=model,
        calibration=DataSpec(
            form.calibration.strip() or "bundled",
            _whole("samples", form.samples),
            _whole("length", form.length),
        ),
        prune=_pruning(form),
        evaluate=EvalSpec(text=form.text.strip() or "bundled"),
    )


def _pruning(form: Form) -> PruneSpec:
    if form.method == MANUAL:
        return _chosen(form)
    if form.method in METHODS.names():
        return _trained(form)
    options = json.loads(form.options or "{}")
    methods.check(form.method, options)
    return replace(_ranked(form), options=options)


def _trained(form: Form) -> PruneSpec:
    """A method that learns what goes: how a target is spread and refitted is not asked of it."""
    entry, preset = METHODS[form.method], form.preset or METHODS[form.method].component.preset
    if preset not in entry.component.presets:
        raise unknown(f"preset of {form.method}", preset, list(entry.component.presets))
    options = {**entry.component.presets[preset].get("prune.options", {}), **json.loads(form.options or "{}")}
    if form.steps is not None and form.steps != entry.settings(options).steps:
        options["steps"] = _whole("steps", form.steps)
    methods.check(form.method, options)
    asked = replace(_ranked(replace(form, scope=Form.scope, reconstruct=Form.reconstruct)), options=options)
    entry.component.check(asked, entry.settings(options))
    return asked


def _ranked(form: Form) -> PruneSpec:
    return PruneSpec(
        method=form.method,
        sparsity=_sparsity(form.sparsity),
        kinds=tuple(KIND_WORDS[kind] for kind in form.kinds),
        layers=form.layers.strip() or None,
        scope=SCOPE_WORDS[form.scope],
        multiple=_multiple(form.multiple),
        kind_sparsity=parse_kind_sparsity([form.kind_sparsity]) if form.kind_sparsity.strip() else {},
        reconstruct=RECONSTRUCT_WORDS[form.reconstruct],
    )


def _chosen(form: Form) -> PruneSpec:
    if not form.units.strip():
        raise SpecError("No unit is chosen; choose some on the Structure tab, or write L03.query_head=0-3,7.")
    refit = RECONSTRUCT_WORDS[form.reconstruct]
    return PruneSpec(method=MANUAL, units=units_of(form.units), reconstruct=refit)


def _typed(values: tuple[Any, ...]) -> list[Any]:
    """The values, with an empty text where a text box was never touched."""
    named = zip(Form.__dataclass_fields__, values, strict=True)
    return ["" if value is None and name in _TEXTS else value for name, value in named]


def form_from(spec: RunSpec) -> Form:
    """The form that asks for this run again."""
    training: dict[str, Any] = {"options": json.dumps(spec.prune.options) if spec.prune.options else ""}
    if preset := preset_of(spec):
        start = training_start(spec.prune.method, preset.name)
        beside = {key: value for key, value in preset.beside.items() if key != "steps"}
        training = {
            "preset": preset.name,
            "steps": preset.beside.get("steps", start["steps"]),
            "options": json.dumps(beside) if beside else "",
        }
    words = {kind: word for word, kind in KIND_WORDS.items()}
    return Form(
        name=spec.name,
        method=spec.prune.method,
        sparsity=f"{spec.prune.sparsity:g}",
        kinds=tuple(words[kind] for kind in spec.prune.kinds),
        layers=spec.prune.layers or "",
        calibration=spec.calibration.name,
        samples=spec.calibration.samples,
        length=spec.calibration.length,
        text=spec.evaluate.text,
        seed=spec.seed,
        units=text_of(spec.prune.units),
        scope=_word(SCOPE_WORDS, spec.prune.scope),
        reconstruct=_word(RECONSTRUCT_WORDS, spec.prune.reconstruct),
        multiple=str(spec.prune.multiple),
        kind_sparsity=",".join(f"{kind}={own:g}" for kind, own in spec.prune.kind_sparsity.items()),
        **training,
    )


def training_start(method: str, preset: str) -> dict[str, Any]:
    """What a preset puts into the fields of the form: `steps`, and windows and their length if it says so."""
    entry = METHODS[method]
    changes = entry.component.presets[preset]
    steps = changes.get("prune.options", {}).get("steps", entry.options["steps"].value)
    form = Form()
    return {
        "steps": steps,
        "samples": changes.get("calibration.samples", form.samples),
        "length": changes.get("calibration.length", form.length),
    }


def _sparsity(text: str) -> float:
    if not str(text).strip():
        raise SpecError("sparsity is empty; write 0.2 for 20 %.")
    return parse_sparsity(str(text).replace(",", "."))


def _multiple(text: str) -> int:
    if not str(text).strip().isdecimal():
        raise SpecError(f"multiple must be a whole number, got {text!r}; 1 leaves widths as they come.")
    return int(text)


def _word(words: dict[str, str], name: str) -> str:
    """What the form calls a name of the spec."""
    return next(word for word, known in words.items() if known == name)


def _whole(name: str, value: Any) -> int:
    if value is None or value != int(value):
        raise SpecError(f"{name} must be a whole number, got {'nothing' if value is None else f'{value:g}'}.")
    return int(value)
