"""Tables and charts of a report, as templates take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from core.results.render import renderer

TEMPLATES = Path(__file__).parent / "templates"
render = renderer(TEMPLATES)


@dataclass(frozen=True)
class Table:
    """Rows under a head, the first column of text; `note` is said below."""

    head: Sequence[object]
    rows: Sequence[Sequence[object]]
    note: str = ""


def lines(title: str, series: dict[str, list[tuple[float, float]]]) -> Markup:
    """A line chart.

    Args:
        series: name -> [(x, y)], each with two points or more.
    """
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    wide, tall = (right - left) or 1.0, (high - low) or 1.0

    def at(point: tuple[float, float]) -> str:
        return f"{60 + 520 * (point[0] - left) / wide:.1f},{160 - 140 * (point[1] - low) / tall:.1f}"

    drawn = [" ".join(map(at, points)) for points in series.values()]
    ends = {"left": left, "right": right, "low": low, "high": high}
    return render("lines.html", title=title, names=list(series), drawn=drawn, **ends)


def bars(title: str, shares: dict[str, list[float]], label: str) -> Markup:
    """A row of bars per name, each a share in [0, 1]; `label` says what a bar is."""
    return render("bars.html", title=title, shares=shares, label=label)
