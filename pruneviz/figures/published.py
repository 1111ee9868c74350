"""A table of a paper, as printed and labelled as such."""

from __future__ import annotations

from html import escape

from pruneviz.published import PublishedTable

LABEL = "Published, not measured here"


def published_html(table: PublishedTable | None) -> str:
    """The table with its source above it; every cell as the paper prints it."""
    if table is None:
        return ""
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return (
        f'<div class="pv-card pv-published"><h3>{escape(table.title)} '
        f'<span class="pv-label">{LABEL}</span></h3>'
        f'<div class="pv-scroll"><table class="pv-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>'
        "</table></div><p class='pv-quiet pv-foot'>Other models, other versions of the harness, other "
        "machines: read them beside our numbers, not against them.</p></div>"
    )
