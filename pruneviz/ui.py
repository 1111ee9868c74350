"""Composes the page; no logic.

Stable element ids, for tests and style sheets:

    page       header, theme-toggle, tabs, tab-<id>-button, url-<name> for every name in the address
    tour       tour, tour-toggle, tour-next, tour-skip
    Model      see `pruneviz/tabs/model.py`
    Structure  see `pruneviz/tabs/structure.py`
    Heads      see `pruneviz/tabs/heads.py`
    Scores     see `pruneviz/tabs/scores.py`
    Sensitivity see `pruneviz/tabs/sensitivity.py`
    Sweep      see `pruneviz/tabs/sweep.py`
    Runs       see `pruneviz/tabs/runs.py`
    Widths     see `pruneviz/tabs/widths.py`
    Compare    see `pruneviz/tabs/compare.py`
"""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from pruneviz import api, scripts
from pruneviz.components.base import panel
from pruneviz.components.tour import TOGGLE, tour
from pruneviz.context import TABS, AppContext, build_url_state
from pruneviz.tabs.compare import build_compare_tab
from pruneviz.tabs.heads import build_heads_tab
from pruneviz.tabs.model import build_model_tab
from pruneviz.tabs.runs import build_runs_tab
from pruneviz.tabs.scores import build_scores_tab
from pruneviz.tabs.sensitivity import build_sensitivity_tab
from pruneviz.tabs.structure import build_structure_tab
from pruneviz.tabs.sweep import build_sweep_tab
from pruneviz.tabs.widths import build_widths_tab

TITLE = "Pruning workbench"
BUILDERS: dict[str, Callable[[AppContext], None]] = {
    "model": build_model_tab,
    "structure": build_structure_tab,
    "heads": build_heads_tab,
    "scores": build_scores_tab,
    "sensitivity": build_sensitivity_tab,
    "sweep": build_sweep_tab,
    "runs": build_runs_tab,
    "widths": build_widths_tab,
    "compare": build_compare_tab,
}
HEADER = """
<div class="pv-header">
  <svg class="pv-mark" viewBox="0 0 34 34" fill="none" stroke="currentColor" stroke-width="2.2"
       stroke-linecap="round" aria-hidden="true">
    <path d="M17 31V13"/><path d="M17 22c-6 0-9-3-9-8"/><path d="M17 18c5 0 8-3 8-8"/>
    <circle cx="8" cy="10" r="3.4" stroke-dasharray="2.6 2.6"/>
    <circle cx="25" cy="6.4" r="3.4" fill="currentColor"/>
    <circle cx="17" cy="9" r="3.4" fill="currentColor"/></svg>
  <div><h1 class="pv-name">Pruning workbench</h1>
    <div class="pv-sub">See what a language model can do without, and take it out</div></div>
  <div class="pv-loaded">Model <b id="pv-model"></b></div>
</div>
"""


def build(app: AppContext) -> gr.Blocks:
    """The whole page around `app`, not launched yet."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        api.add_endpoints(app)  # before others take these names
        app.url = build_url_state(app.model)
        with gr.Column(elem_id="header"):
            panel("brand", HEADER)
            toggle = gr.Button("◐", elem_id="theme-toggle", size="sm")
            _build_tour(app)
        with gr.Tabs(elem_id="tabs") as tabs:
            for name, title in TABS.items():
                with gr.Tab(title, id=name, elem_id=f"tab-{name}") as app.tabs[name]:
                    BUILDERS[name](app)
        toggle.click(None, js=scripts.TOGGLE_THEME)
        _wire_url(page, app, tabs)
    _mark_little(page, app.url.tab)
    return page


def _mark_little(page: gr.Blocks, box: gr.Textbox) -> None:
    """Have quiet events say to `box` alone that they are under way, and not to all they change.

    Nobody sees it, and each time Gradio tells every such component of the page, which it searches for from
    the top: while a run was watched, that kept a browser busy.
    """
    for event in page.fns.values():
        if event.show_progress == "hidden":
            event.show_progress_on = [box]


def _build_tour(app: AppContext) -> None:
    """The stops of a first visit, which lead through the examples, and the button that brings them back."""
    models = dict.fromkeys(record.model for record in app.examples.records)
    if models:
        button = gr.Button("Tour", elem_id="tour-toggle", size="sm")
        button.click(None, js=TOGGLE, api_visibility="private")
        tour(list(models), elem_id="tour")


def _wire_url(page: gr.Blocks, app: AppContext, tabs: gr.Tabs) -> None:
    """Address -> page once on load, page -> address ever after; all in the browser."""
    page.load(None, None, [*app.url.all(), tabs], js=scripts.restore(app.model), api_visibility="private")
    for name, tab in app.tabs.items():
        tab.select(None, None, app.url.tab, js=scripts.select_tab(name), api_visibility="private")
    for box in app.url.all():
        box.change(None, app.url.all(), None, js=scripts.WRITE_URL, api_visibility="private")
    app.url.model.change(
        None, [app.url.model, app.url.units], app.url.units, js=scripts.FORGET_UNITS, api_visibility="private"
    )
