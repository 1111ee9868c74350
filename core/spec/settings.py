"""A method's own options as `key=value`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from core.errors import SpecError
from core.option import option
from core.spec.checks import parse_share


def own_options(help: str) -> Any:
    """The field of a spec that holds options which the spec does not know: name -> value."""
    return option(
        dict,
        f"{help}; may be repeated. See `methods`.",
        default_text="none",
        flag="--set",
        metavar="KEY=VALUE",
        repeated=True,
        parse=parse_settings,
        write=settings_entries,
    )


def parse_settings(entries: Iterable[str]) -> dict[str, Any]:
    """Read `key=value`, …, each value as what it looks like: true or false, a number, a share, or a text."""
    return dict(map(_setting, entries))


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key.strip() or not equals:
        raise SpecError(f"--set takes key=value, got {text!r}; `methods` lists what each method takes.")
    return key.strip(), parse_setting(value.strip())


def parse_setting(text: str) -> Any:
    """A value as what it looks like."""
    for read in ({"true": True, "false": False}.__getitem__, int):
        with suppress(KeyError, ValueError):
            return read(text)
    return parse_share(text)


def settings_entries(options: Mapping[str, Any]) -> list[str]:
    """What `parse_settings` reads."""
    return [f"{key}={str(v).lower() if isinstance(v, bool) else v}" for key, v in options.items()]
