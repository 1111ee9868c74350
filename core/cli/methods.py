"""`methods`: every criterion and method with its options."""

from __future__ import annotations

from typing import Any

from core.cli import options
from core.cli.terminal import emit, stdout_kept_clean


def methods(as_json: options.Json = False) -> None:
    """List every criterion and method: where it is from, what data it needs, its options."""
    with stdout_kept_clean():
        from core.criteria import CRITERIA
    from core.methods import METHODS, describe

    entries = [entry.describe() for entry in CRITERIA]
    trained = [describe(entry) for entry in METHODS]
    lines = [line for entry in [*entries, *trained] for line in _described(entry)]
    # Every criterion is a method of `prune`: rank by it, then cut.
    emit({"criteria": entries, "methods": [*entries, *trained]}, as_json, lines)


def _described(entry: dict[str, Any]) -> list[str]:
    source = " ".join(filter(None, (entry["paper"], entry["equation"])))
    needs = f"needs {', '.join(entry['needs'])}" if entry["needs"] else "needs no data"
    options = [
        f"    --set {key}={option['default']}  {option['meaning']}"
        for key, option in entry["options"].items()
    ]
    presets = [
        f"    --preset {name}  {', '.join(f'{path}={value}' for path, value in changes.items())}"
        for name, changes in entry.get("presets", {}).items()
    ]
    return [f"{entry['name']}  ({source}; {needs})", f"    {entry['summary']}", *options, *presets]
