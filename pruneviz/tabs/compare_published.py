"""Tables of the papers on the Compare tab, with the models of the comparison below them.

Element ids: compare-published, compare-published-of, compare-published-table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from pruneviz.components.copying import copying
from pruneviz.data.contenders import Lineup
from pruneviz.data.published import published_table, published_tables
from pruneviz.data.runs import RunRecord
from pruneviz.figures.compare import entries_of
from pruneviz.figures.published import published_html, published_info
from pruneviz.tabs.parts import Parts


@dataclass(frozen=True)
class Published(Parts):
    """The chosen table by name, and what is shown of it."""

    of: gr.Dropdown
    shown: gr.HTML


def build_published() -> Published:
    """A table of a paper, chosen by hand; it changes none of our numbers."""
    tables = published_tables()
    with gr.Accordion("Published results", open=False, elem_id="compare-published"):
        chosen = gr.Dropdown(
            [(table.title, table.name) for table in tables], value=tables[0].name, label="Paper and table",
            elem_id="compare-published-of",
        )  # fmt: skip
        shown = copying("compare-published-table", published_html(published_info(tables[0])))
    return Published(chosen, shown)


def shown_table(name: str, lineup: Lineup, records: Sequence[RunRecord]) -> str:
    """The table of this name, with these models below it."""
    table = published_table(name)
    return published_html(published_info(table, entries_of(lineup, records)) if table else None)
