"""What the tabs are put together from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from core.errors import PruneError
from pruneviz import methods, selection
from pruneviz.context import AppContext
from pruneviz.waiting import Done, ticking


def panel(elem_id: str, value: str = "", **options: Any) -> gr.HTML:
    """HTML written in Python, everything in it escaped; it listens to nothing."""
    return gr.HTML(value, elem_id=elem_id, apply_default_css=False, js_on_load=None, **options)


def intro(text: str) -> None:
    """The one sentence a tab begins with."""
    gr.HTML(f'<p class="pv-intro">{text}</p>', apply_default_css=False, js_on_load=None)


def into_plan(component: gr.HTML, app: AppContext) -> None:
    """On `take`, add its `removed` to the units in the address and open the New run form with them."""

    def taken(units: str, event: gr.EventData) -> list[str]:
        text = selection.added(units, event.removed)
        return [text, selection.hand_over(text)]

    component.take(taken, app.url.units, [app.url.units, app.url.plan], **quietly())


def offer_methods(app: AppContext, tab: str, field: gr.Dropdown) -> Any:
    """Offer all methods that rank units once the tab is opened; until they are known the usual ones do.

    Returns the event, for what has to come after it.
    """

    def learn() -> Iterator[Any]:
        try:
            for step in ticking(methods.all_methods):
                if isinstance(step, Done):
                    yield gr.Dropdown(methods.ranking())
        except PruneError as error:
            gr.Warning(str(error))
            yield gr.skip()

    return app.tabs[tab].select(learn, None, field, **quietly())


def quietly() -> dict[str, Any]:
    """Event options: no spinner over what stands there, and no public API endpoint."""
    return {"show_progress": "hidden", "api_visibility": "private"}
