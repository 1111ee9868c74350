"""The fields of a spec by dotted path, such as `prune.sparsity`. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from core.spec.run import RunSpec


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
