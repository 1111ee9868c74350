"""How much time a run may spend on what is left: each way as a whole, with its training, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

from core.errors import SpecError
from core.registry import unknown
from core.spec.fields import changed, field_of
from core.spec.recommended import RECOMMENDED
from core.spec.recover import RecoverSpec, recipe_of, recover_preset
from core.spec.run import RunSpec


class Effort(NamedTuple):
    """A way to cut and to train what is left.

    Attributes:
        title: what a form calls it; about: what it does, and what that took of the demo model on two cores.
        changes: what it changes of a spec, by dotted path; nothing of `recover`.
        recipe: of the training, a name in `core.spec.recover.PRESETS`; empty for none.
    """

    title: str
    about: str
    changes: Mapping[str, Any]
    recipe: str = ""


#: What an effort says of which units go, unless they were chosen by hand.
CHOICE = ("prune.method", "prune.scope")
#: The recommended cut with the best refit, see docs/measured.md, What the default still knows.
_CUT = MappingProxyType(
    {
        "prune.method": RECOMMENDED,
        "prune.scope": RECOMMENDED,
        "prune.reconstruct": "least_squares",
        "calibration.samples": 16,
        "calibration.length": 256,
    }
)
EFFORTS = {
    RECOMMENDED: Effort(
        "No training (recommended)",
        "the best known cut without training, 3 minutes of the demo model",
        MappingProxyType({}),
    ),
    "minutes": Effort(
        "A few minutes of training",
        "a better refit, and the dense model teaches all weights, 18 minutes of the demo model",
        _CUT,
        "minutes",
    ),
    "hour": Effort(
        "An hour of training", "the same, taught four times as long: an hour of the demo model", _CUT, "hour"
    ),
}
#: What an effort says, beside `recover`.
SAYS = tuple(_CUT)


def with_effort(spec: RunSpec, name: str) -> RunSpec:
    """A spec that asks for this effort; target, kinds, texts and units chosen by hand stay.

    Raises:
        UnknownNameError: there is no such effort. SpecError: it does not go with what else the spec says.
    """
    if name not in EFFORTS:
        raise unknown("preset", name, list(EFFORTS))
    effort, usual = EFFORTS[name], RunSpec()
    training = recover_preset(effort.recipe) if effort.recipe else RecoverSpec()
    fields = {path: field_of(usual, path) for path in SAYS} | {**effort.changes}
    if spec.prune.units:
        fields = {path: value for path, value in fields.items() if path not in CHOICE}
    return replace(changed(spec, fields), recover=replace(training, data=spec.recover.data))


def effort_of(spec: RunSpec) -> str | None:
    """The effort that a spec asks for, or None if it asks for something of its own."""
    return next((name for name in EFFORTS if _asks_for(spec, name)), None)


def _asks_for(spec: RunSpec, name: str) -> bool:
    try:
        like, recipe = with_effort(spec, name), EFFORTS[name].recipe or None
    except SpecError:  # what else it says goes with no such effort
        return False
    same = all(field_of(spec, path) == field_of(like, path) for path in SAYS)
    return same and spec.recover.method == like.recover.method and recipe_of(spec.recover) == recipe
