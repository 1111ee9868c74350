"""Six stops that lead a first visit through the page; the browser remembers which are done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from pruneviz.components.base import canvas

#: Brings the tour back, or puts it away.
TOGGLE = '() => document.dispatchEvent(new CustomEvent("pv-tour"))'
#: In order. `tab` is opened and what `focus` selects gets the focus, inside `around`, which is marked; `open`
#: is clicked first while that cannot be seen. `when` says what has to happen to what: event -> selector. What
#: `unfolds` a list is brought to where that has room below.
STOPS: tuple[dict[str, Any], ...] = (
    {
        "id": "structure", "title": "Structure", "tab": "structure",
        "focus": "#structure-map .pv-cell", "around": ".pv-mapbox",
        "when": {"click": "#structure-map .pv-cell"},
        "todo": "Choose a cell of the map: the heads or the channels of one layer.",
        "seen": "Every square is a unit. Click one to see each slice of a matrix that goes with it.",
    },
    {
        "id": "heads", "title": "Heads", "tab": "heads",
        "focus": "#heads-tau", "around": ".pv-taubar",
        "when": {"input": "#heads-tau", "change": "#heads-tau-number"},
        "todo": "Move τ: heads that attend alike are joined, and Algorithm 1 says which could go.",
        "seen": "The more pairs lie below τ, the more heads say what another one says already.",
    },
    {
        "id": "scores", "title": "Scores", "tab": "scores",
        "focus": "#scores-within input", "around": "#scores-within",
        "when": {"change": "#scores-within, #scores-units, #scores-order"},
        "todo": "Set scores relative to each layer instead of the whole model.",
        "seen": "Further down two criteria stand against each other, unit by unit: do they agree?",
    },
    {
        "id": "sensitivity", "title": "Sensitivity", "tab": "sensitivity",
        "focus": "#sensitivity-scale input", "around": "#sensitivity-scale",
        "when": {"change": "#sensitivity-scale"},
        "todo": "Switch the axis, and look for the layers that hurt most when they are pruned.",
        "seen": "Here the first layers are the fragile ones; a run can spare them (its field Layers).",
    },
    {
        "id": "prune", "title": "Prune", "tab": "runs", "open": "#new-run button",
        "focus": "#new-slider input[type=range]", "around": "#new-slider",
        "when": {"click": "#new-launch"},
        "todo": "Choose how much goes, see what would be left, and launch it: some minutes.",
        "seen": "The run goes on even if this page is closed. When it is done, compare its model.",
    },
    {
        "id": "compare", "title": "Compare", "tab": "compare", "unfolds": True,
        "focus": "#compare-library input", "around": "#compare-library",
        "when": {"click": "#compare-library li, #compare-go", "keydown": "#compare-library input"},
        "todo": "Choose a prompt: the answers stand side by side, above sizes, speeds and scores.",
        "seen": "Words that the dense model did not use are marked. Blind hides who is who.",
    },
)  # fmt: skip


def tour(models: Sequence[str], **options: Any) -> gr.HTML:
    """Shows the stops while one of `models` is open, until they are put away."""
    return canvas("tour", constants={"STOPS": STOPS, "MODELS": list(models)}, **options)
