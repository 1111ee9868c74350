"""What the tabs are put together from."""

from __future__ import annotations

import zlib
from typing import Any

import gradio as gr
from gradio.blocks import Block

from pruneviz import scripts
from pruneviz.components.base import panel
from pruneviz.context import AppContext, memory
from pruneviz.data import selection
from pruneviz.figures import states


def intro(text: str) -> None:
    """The one sentence a tab begins with."""
    panel(None, states.paragraph_html(text, "intro"))


def into_plan(component: gr.HTML, app: AppContext) -> None:
    """On `take`, add its `removed` to the units in the address and open the New run form with them."""

    def taken(units: str, event: gr.EventData) -> list[str]:
        text = selection.added(units, event.removed)
        return [text, selection.hand_over(text)]

    component.take(taken, app.url.units, [app.url.units, app.url.plan], **quietly())


def while_open(app: AppContext, tab: str, *boxes: gr.Textbox) -> gr.Textbox:
    """A hidden box whose `change` comes after that of these boxes, but only while this tab is open.

    The page decides, so that the server is not asked on behalf of tabs that nobody sees; one that is opened
    later is filled by its `select`.
    """
    asked = memory(f"{tab}-asked")
    gr.on(
        [box.change for box in boxes], None, [app.url.tab, asked], asked, js=scripts.while_open(tab),
        api_visibility="private",
    )  # fmt: skip
    return asked


def only_changed(values: list[Any], known: str) -> list[Any]:
    """What a page has to be sent that polls: these values, but nothing for those it shows already.

    Args:
        known: what the last call returned as its last value, kept by the page; empty for a page that is to
            be sent everything.

    Returns:
        The values, and last what to keep.
    """
    marks = [format(zlib.crc32(_plain(value).encode()), "x") for value in values]
    before = known.split()
    if len(before) != len(marks):  # a page that is to be sent everything, or of an older dashboard
        return [*values, " ".join(marks)]
    pairs = zip(marks, before, values, strict=True)
    return [*(gr.skip() if mark == old else value for mark, old, value in pairs), " ".join(marks)]


def _plain(value: Any) -> str:
    """A value, or an update of a component, as text."""
    return repr(value.constructor_args if isinstance(value, Block) else value)


def quietly() -> dict[str, Any]:
    """Event options: no spinner over what stands there, and no public API endpoint."""
    return {"show_progress": "hidden", "api_visibility": "private"}
