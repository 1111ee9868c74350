"""Curves with no more points than a chart can show, however long a run is."""

from __future__ import annotations

from collections.abc import Sequence

#: A curve is drawn with at most about so many points.
POINTS = 400
#: Shorter curves show each point as a dot.
DOTS = 40


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Every so many-th point and the last one, `POINTS` + 1 at most.

    Evenly by number and not by value, so that curves told at the same steps keep the same ones: one hover
    then reads them all.

    Args:
        points: step and value, in order; not empty.
    """
    stride = -(-len(points) // POINTS)
    return [*points[:-1:stride], points[-1]]


def mode(points: Sequence[object]) -> str:
    """How Plotly draws a curve of so many points; a dot is an element of the page each."""
    return "lines+markers" if len(points) < DOTS else "lines"
