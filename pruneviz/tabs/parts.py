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

#: Options of events: no spinner over what stands there, and no public API endpoint.
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
#: The same of several events, one of them a change: where one comes while another is answered, it is answered
#: after that. Gradio would leave it out.
LATEST: dict[str, Any] = {**QUIET, "trigger_mode": "always_last"}


#: Class of boxes for numbers, for which phones show digits (`pruneviz.scripts.HEAD`).
NUMBER = "pv-number"


class Parts:
    """Components of the page by name, for dataclasses whose fields are components, or `Parts` in turn."""

    def all(self) -> list[Any]:
        """All components."""
        parts = vars(self).values()
        return [each for part in parts for each in (part.all() if isinstance(part, Parts) else [part])]

    def filled(self, updates: dict[str, Any]) -> dict[Any, Any]:
        """What a callback returns: an update of each component named; the others stay as they are."""
        filled: dict[Any, Any] = {}
        for name, update in updates.items():
            part = getattr(self, name)
            filled |= part.filled(update) if isinstance(part, Parts) else {part: update}
        return filled


def message(html: str) -> gr.HTML:
    """An update of a panel that is there only while it has something to say."""
    return gr.HTML(html, visible=bool(html))


def number_box(value: Any, **words: Any) -> gr.Textbox:
    """A box for a number that hands on what was typed, to be read or refused in words.

    An emptied number box of Gradio sends a zero, one with letters nothing, and one out of bounds an error.
    """
    return gr.Textbox(str(value), max_lines=1, elem_classes=NUMBER, **words)


def intro(text: str) -> None:
    """The one sentence a tab begins with."""
    panel(None, states.paragraph_html(text, "intro"))


def into_plan(component: gr.HTML, app: AppContext) -> None:
    """On `take`, add its `removed` to the units in the address and open the New run form with them."""

    def taken(units: str, event: gr.EventData) -> str:
        return selection.added(units, event.removed)

    app.handing_over.append(component.take(taken, app.url.units, app.url.units, **QUIET).then)


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


def only_changed(updates: dict[Any, Any], sent: str) -> tuple[dict[Any, Any], str]:
    """What a page has to be sent that polls: these updates without those it shows already.

    Args:
        sent: the second value of the last call, kept by the page; empty for a page that is to be sent all.
    """
    marks = {part: f"{part._id}:{zlib.crc32(_plain(update).encode()):x}" for part, update in updates.items()}
    shown = set(sent.split())
    changed = {part: update for part, update in updates.items() if marks[part] not in shown}
    return changed, " ".join(marks.values())


def _plain(value: Any) -> str:
    """A value, or an update of a component, as text."""
    return repr(value.constructor_args if isinstance(value, Block) else value)
