"""Questions that one model has right and the other wrong, drawn in the browser as text nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import gradio as gr

from pruneviz.components.base import canvas, payload
from pruneviz.figures.task_scores import Flip

#: So many of each sort are sent; the counts say how many there are.
SHOWN = 40


def question_flips(**options: Any) -> gr.HTML:
    """Shows what `flips_payload` returns."""
    return canvas("question_flips", **options)


def flips_payload(lost: Sequence[Flip], won: Sequence[Flip], before: str, after: str) -> str:
    """Both lists for the browser, with the two models' titles."""
    lists = [
        {"title": title, "count": len(flips), "flips": [asdict(flip) for flip in flips[:SHOWN]]}
        for title, flips in (("Right, now wrong", lost), ("Wrong, now right", won))
    ]
    return payload({"before": before, "after": after, "lists": lists})
