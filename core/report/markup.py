"""HTML and SVG as text. Everything is escaped on its way in, unless it was made here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Markup(str):
    """Text that is HTML already: only this module's functions and constants of ours may be."""


def text(value: object) -> Markup:
    """Anything as HTML that shows it letter by letter: a model's answer stays an answer."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def element(name: str, *children: object, **attributes: object) -> Markup:
    """`<name …>children</name>`; a trailing underscore in an attribute is dropped, others become dashes."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{given}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Markup:
    """Children one after the other."""
    return Markup("".join(text(child) for child in children))


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> Markup:
    """A table whose first column is text and whose others are numbers."""
    columns = join(element("th", cell, scope="col") for cell in head)
    body = join(
        element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest))
        for first, *rest in rows
    )
    return element(
        "div",
        element("table", element("thead", element("tr", columns)), element("tbody", body)),
        class_="scroll",
    )


def lines(title: str, series: dict[str, list[tuple[float, float]]], unit: str = "") -> Markup:
    """A line chart: one polyline a series, axes with their ends written out.

    Args:
        series: name -> [(x, y)], each with two points or more.
    """
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    wide, tall = (right - left) or 1.0, (high - low) or 1.0

    def at(point: tuple[float, float]) -> str:
        return f"{60 + 520 * (point[0] - left) / wide:.1f},{160 - 140 * (point[1] - low) / tall:.1f}"

    drawn = [
        element("polyline", points=" ".join(map(at, points)), class_=f"line s{number % 4}")
        for number, points in enumerate(series.values())
    ]
    marks = [
        element("text", f"{high:.4g}", x=54, y=24, text_anchor="end"),
        element("text", f"{low:.4g}", x=54, y=164, text_anchor="end"),
        element("text", f"{left:g}", x=60, y=180),
        element("text", f"{right:g}{unit}", x=580, y=180, text_anchor="end"),
    ]
    axes = element("path", d="M60 20V160H580", class_="axis")
    return _figure(title, axes, *drawn, *marks, height=188, names=list(series))


def bars(title: str, shares: dict[str, list[float]], label: str) -> Markup:
    """What is left of each layer: one row of bars a kind, each bar a share in [0, 1]."""
    parts: list[Markup] = []
    for row, (name, values) in enumerate(shares.items()):
        top, step = 20 + 70 * row, 520 / max(len(values), 1)
        parts.append(element("text", name, x=60, y=top - 6))
        for number, share in enumerate(values):
            x, width = f"{60 + number * step:.1f}", f"{step * 0.8:.1f}"
            tip = element("title", f"{name}, {label} {number}: {share:.0%} left")
            full = element("rect", x=x, y=top, width=width, height=44, class_="gone")
            left = element(
                "rect", x=x, y=f"{top + 44 * (1 - share):.1f}", width=width, height=f"{44 * share:.1f}",
                class_=f"bar s{row % 4}",
            )  # fmt: skip
            parts.append(element("g", tip, full, left))
    return _figure(title, *parts, height=20 + 70 * len(shares), names=[])


def _figure(title: str, *parts: Markup, height: int, names: list[str]) -> Markup:
    drawing = element("svg", *parts, viewBox=f"0 0 600 {height}", role="img", aria_label=title)
    legend = [element("span", name, class_=f"key s{number % 4}") for number, name in enumerate(names)]
    return element("figure", drawing, element("figcaption", title, " ", *legend))
