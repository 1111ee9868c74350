"""What a message calls an option -> what the page calls it: a shell has options, a form has labels.

Messages are written once, for shells and programs; whatever the page shows of them goes through `on_page`.
"""

from __future__ import annotations

import re
from functools import cache

from markupsafe import Markup

from core.option import Option
from core.spec.fields import OPTIONS

#: An option as a shell takes it, and a value that may follow it; not one of the command that serves the page.
_FLAG = re.compile(r"(?<!the page without )(?<![\w-])(--[a-z][a-z0-9-]*)(?: ([a-z_]+)\b)?")
#: What no word of a sentence looks like, unless it is what was given or what to write.
_NAME = re.compile(r"(?<![\w'.=/-])([a-z]+(?:_[a-z]+)+)(?![\w'=/]|\.\w)")


def on_page(text: object) -> str:
    """A message with the labels of fields in the place of options; what has no field stays an option."""
    if isinstance(text, Markup):
        return text
    text = _FLAG.sub(_flag, str(text))
    text = _NAME.sub(lambda named: _label(_names().get(named[1]), named[0]), text)
    for name, option in sorted(_names().items(), key=lambda item: -len(item[0])):
        if text.startswith((f"{name} ", f"{name}: ")):
            return _label(option, name) + text.removeprefix(name)
    return text


def _flag(typed: re.Match[str]) -> str:
    """An option of the command line in the form's words, with the value if that is one of its choices."""
    option, value = _flags().get(typed[1]), typed[2]
    if option is None:
        return typed[0]
    if value in option.choices:
        return f"“{option.title}: {option.choices[value]}”"
    return _label(option, typed[1]) + (f" {value}" if value else "")


def _label(option: Option | None, name: str) -> str:
    return f"“{option.title}”" if option else name


@cache
def _flags() -> dict[str, Option]:
    """What turns an option on -> it, of those that have a field."""
    titled = [option for option in OPTIONS.values() if option.title and option.flag]
    return {option.flag.partition("/")[0]: option for option in reversed(titled)}


@cache
def _names() -> dict[str, Option]:
    """What messages call an option -> it, where all options that are called so have the same label."""
    spoken = {option.spoken: option for option in OPTIONS.values()}
    labels = {name: {each.title for each in OPTIONS.values() if each.spoken == name} for name in spoken}
    plain = {each.name: each for each in OPTIONS.values() if each.name not in spoken}
    alike = {name: option for name, option in spoken.items() if len(labels[name]) == 1}
    return {name: option for name, option in (plain | alike).items() if option.title}
