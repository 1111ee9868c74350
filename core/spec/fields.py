"""The fields of a spec by dotted path, such as `prune.sparsity`."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

from core.option import Option, options_of
from core.spec.run import RunSpec


def _every() -> dict[str, Option]:
    """Options by path, in the order of the fields."""
    options: dict[str, Option] = {}
    for field in dataclasses.fields(RunSpec):
        if field.name in options_of(RunSpec):
            options[field.name] = options_of(RunSpec)[field.name]
        else:
            part: Any = type(getattr(RunSpec(), field.name))
            options |= {f"{field.name}.{name}": option for name, option in options_of(part).items()}
    return options


#: Every option of a run: dotted path -> what is said of it.
OPTIONS = _every()


def paths(part: str, but: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The paths of one part of a spec that have an option of the command line, without those named."""
    inside = [path for path in OPTIONS if path.rpartition(".")[0] == part and OPTIONS[path].flag]
    return tuple(path for path in inside if path.rpartition(".")[2] not in but)


def field_of(spec: RunSpec, path: str) -> Any:
    """The value at a dotted path such as `prune.sparsity`."""
    value: Any = spec
    for name in path.split("."):
        value = getattr(value, name)
    return value


def changed(spec: RunSpec, changes: dict[str, Any]) -> RunSpec:
    """The spec with the fields at dotted paths replaced; None leaves a field as it is. Raises SpecError."""
    parts: dict[str, dict[str, Any]] = {}
    for path, value in changes.items():
        if value is not None:
            part, _, name = path.rpartition(".")
            parts.setdefault(part, {})[name] = value
    top = parts.pop("", {})
    return replace(spec, **top, **{part: replace(getattr(spec, part), **new) for part, new in parts.items()})
