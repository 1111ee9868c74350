"""Templates, the one way HTML is written: whatever is put into a place of one is escaped there."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from core.results import words

Writer = Callable[..., str]
#: How templates write numbers; `size`, `count` and the like are those of `core.results.words`.
FILTERS = (
    words.age, words.calibrated_on, words.count, words.duration, words.measured_on,
    words.memory, words.number, words.percent, words.perplexity,
    words.sentence, words.signed, words.size, words.sparsity, words.with_error,
)  # fmt: skip


@lru_cache
def environment(folder: Path, autoescape: bool = True, filters: tuple[Writer, ...] = ()) -> Environment:
    """The templates in a folder. An undefined name is an error; strings are escaped unless made here."""
    templates = Environment(
        loader=FileSystemLoader(folder), autoescape=autoescape, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    templates.filters |= {write.__name__: write for write in (*FILTERS, *filters)}
    templates.globals["dash"] = words.DASH
    return templates


def renderer(
    folder: Path, autoescape: bool = True, filters: tuple[Writer, ...] = ()
) -> Callable[..., Markup]:
    """`render(template, **values)`: the template filled in, which other templates take as HTML.

    Args:
        autoescape: False for text that is not HTML; filters: beside `FILTERS`.
    """

    def render(template: str, **values: object) -> Markup:
        return Markup(environment(folder, autoescape, filters).get_template(template).render(values).strip())

    return render
