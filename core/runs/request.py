"""What somebody asks for, from a shell or a program, as a spec that was checked: the same words for both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from core import methods
from core.errors import SpecError
from core.methods import METHODS
from core.registry import unknown
from core.runs.command_line import RANKING, TAKES
from core.spec.efforts import EFFORTS, with_effort
from core.spec.fields import OPTIONS, changed, field_of
from core.spec.recover import PRESETS, recover_preset
from core.spec.run import Goal, RunSpec
from core.spec.units import MANUAL, read_plan_file

#: Dotted path of a field -> its value, for the fields that were given.
Given = Mapping[str, Any]
#: Stands in a command's signature where the options of fields come.
FIELDS: Given = MappingProxyType({})


def given_of(goal: Goal, options: Mapping[str, Any]) -> Given:
    """Options by their names on the command line, `sparsity` or `max-new-tokens`, as fields of a spec.

    A value is a text as it is typed, or what JSON has for it: a number, a list, an object.

    Raises:
        SpecError: a name that the command of this goal has no option of, or a value that cannot be read.
    """
    names = {_name_of(path): path for path in TAKES[goal]}
    given = {}
    for name, value in options.items():
        if (path := names.get(str(name).lstrip("-").replace("_", "-"))) is None:
            raise unknown(f"option of {goal}", str(name), list(names))
        option = OPTIONS[path]
        textual = isinstance(value, str) or (option.kind in (tuple, dict) and isinstance(value, list))
        given[path] = option.read(value) if textual else value
    return given


def _name_of(path: str) -> str:
    return OPTIONS[path].flag.partition("/")[0].removeprefix("--")


def ask(goal: Goal, model: str | None, given: Given, base: RunSpec | None = None) -> RunSpec:
    """The spec that the options ask for. Fields that were not given leave `base` as it is.

    Raises:
        SpecError: options that do not fit, or a model's own code is to run and only `base` says so.
    """
    base, own = base or RunSpec(), {}
    for path in ("prune.options", "explore.options"):
        if path in given:
            if not isinstance(given[path], Mapping):
                raise SpecError(f"{_name_of(path)} must be an object: name -> value, got {given[path]!r}.")
            own[path] = {**field_of(base, path), **given[path]}
    if given.get("prune.method", base.prune.method) != base.prune.method:  # another has other options
        own["prune.options"] = given.get("prune.options", {})
    spec = changed(base, {"goal": goal, "model.source": model, **given, **own})
    if spec.model.trust_remote_code and "model.trust_remote_code" not in given:
        raise SpecError(
            f"This spec asks to run code that comes with {spec.model.source}. Read that code; if you trust "
            "it, add --trust-remote-code, else --no-trust-remote-code."
        )
    return spec


def ask_to_prune(
    model: str | None,
    given: Given,
    base: RunSpec | None = None,
    *,
    preset: str | None = None,
    plan: Path | None = None,
) -> RunSpec:
    """The spec that `prune` with these options means.

    Args:
        preset: of a whole run, of a training, or of a method that trains; plan: a file with the units to go.

    Raises:
        SpecError: options that do not fit.
    """
    if not isinstance(preset, str | None):
        raise SpecError(f"preset must be a text, got {preset!r}.")
    base = base or RunSpec()
    changes = {**given, **_by_hand(given, plan, base)}
    method = changes.get("prune.method", base.prune.method)
    if method in METHODS.names():  # then the preset and the steps are the method's
        base = methods.with_preset(base, method, preset, changes.pop("recover.steps", None))
    elif preset in EFFORTS:
        base = with_effort(base, preset)
    else:
        base = _with_recipe(base, given.get("recover.method"), preset)
    spec = ask("prune", model, changes, base)
    _check_amount(spec, changes)
    _check_trains(spec, changes)
    return spec


def _with_recipe(spec: RunSpec, method: str | None, preset: str | None) -> RunSpec:
    """The spec with the recipe of that name; `method` says whether it trains. Raises SpecError."""
    if preset is None:
        return spec
    if preset not in PRESETS:
        raise unknown("preset", preset, [*dict.fromkeys((*EFFORTS, *PRESETS))])
    recipe = recover_preset(preset)
    if (method or spec.recover.method) == "none":
        raise SpecError(
            f"--preset {preset} is a recipe of training; add --recover lora or distill, or leave it out."
        )
    return replace(spec, recover=replace(recipe, method=method or spec.recover.method))


def _check_trains(spec: RunSpec, changes: Given) -> None:
    """Raises SpecError where an option of the training is given, and nothing is trained by it."""
    stray = [path for path in changes if path.startswith("recover.") and path != "recover.method"]
    if not stray or spec.recover.method != "none":
        return
    flags = ", ".join(OPTIONS[path].flag for path in stray)
    told = f"{flags} {'belongs' if len(stray) == 1 else 'belong'} to --recover lora or distill; add one"
    if spec.prune.method not in METHODS.names():
        raise SpecError(f"{told}, or leave out {flags}.")
    names = [path.removeprefix("recover.") for path in stray]
    takes = METHODS[spec.prune.method].options
    own = [f"--set {option}=…" for name in names for option in (f"lora_{name}", name) if option in takes]
    instead = f"write {' '.join(own)}" if own else "see `methods`"
    raise SpecError(f"{told}, or for the training of {spec.prune.method} {instead}.")


def _check_amount(spec: RunSpec, changes: Given) -> None:
    """Raises SpecError where both a sparsity and a budget say how much goes."""
    if spec.prune.target and "prune.sparsity" in changes:
        raise SpecError(
            f"--sparsity {changes['prune.sparsity']:g} and --target {spec.prune.target} both say how much "
            "goes; leave out one of them (--target '' for none)."
        )


def _by_hand(changes: Given, plan: Path | None, base: RunSpec) -> dict[str, Any]:
    """Units and method where the user gives units; options that rank units are refused then."""
    sources = [*(["--units"] if "prune.units" in changes else []), *(["--plan"] if plan else [])]
    if len(sources) > 1:
        raise SpecError("Give either --units or --plan, got both.")
    if not sources and not base.prune.units:
        return {}
    stray = [OPTIONS[path].flag for path in RANKING if changes.get(path, MANUAL) != MANUAL]
    if stray:
        raise SpecError(f"{(sources or ['--spec'])[0]} says which units go, so leave out {', '.join(stray)}.")
    if not sources:
        return {}
    units = changes["prune.units"] if plan is None else read_plan_file(plan)
    return {"prune.units": units, "prune.method": MANUAL}
