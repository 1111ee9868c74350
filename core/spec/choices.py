"""What may go, how a target is spread, and what repairs a cut: what people choose from."""

from __future__ import annotations

#: Unit kinds a plan may cut, and how a form calls them. `attention` kinds exclude each other: both own the
#: same query heads.
KINDS = {
    "ffn_channel": "Feed-forward channels",
    "query_head": "Query heads",
    "kv_group": "Key-value groups",
    "residual_channel": "Hidden channels",
}
#: How a target is spread: evenly, by value per parameter, or by how a unit stands out in its layer.
SCOPES = {
    "local": "Every layer alike",
    "global": "By worth per parameter",
    "al_am": "By how channels stand out, FLAP's AL-AM",
    "standardised": "By how units stand out",
    "raw": "By scores as they are",
    "searched": "By search: as much of each group as is measured to hurt least",
}
#: The scope that is measured, see `core.search`.
SEARCHED = "searched"
#: What is done about the error that pruning makes, without training.
RECONSTRUCTIONS = {
    "none": "Nothing",
    "bias": "Biases",
    "least_squares": "Weights, by least squares",
    "pre_pruning": "Modules, before their units are chosen again: pre-pruning recovery",
    "pre_pruning_refit": "The same with biases, and what stays is fitted once more",
}
#: Those which put part of what they find into a bias, also where the dense model has none.
BIASED = ("bias", "least_squares", "pre_pruning_refit")
#: Those which choose the units of every module again.
RECHOOSING = ("pre_pruning", "pre_pruning_refit")
#: LLM-Pruner's two ways (Section 3.1): blocks lose heads and channels of their own, or all lose the same
#: hidden channels.
STRATEGIES = {"block": ("query_head", "ffn_channel"), "channel": ("residual_channel",)}
