"""One small model with grouped-query attention and biases (Qwen2), padded tokens, and its scores, made once.

Only tests may know layer names.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from core.capture.statistics import STATISTICS, capture
from core.criteria.scoring import score
from core.graph.discover import discover
from core.graph.records import Graph
from tests.handmade import ids, tiny
from tests.naive import inputs_of

KINDS = ("query_head", "kv_group", "ffn_channel", "residual_channel")
HEADS, SHARED, WIDTH = 4, 2, 8


@cache
def case() -> tuple[PreTrainedModel, Graph, Tensor]:
    model = tiny("qwen2")
    tokens = ids(model, batch=3)
    tokens[1, 9:] = 0  # padding
    return model, discover(model, name="tiny"), tokens


@cache
def found(name: str, **options: object) -> dict[str, np.ndarray]:
    model, graph, tokens = case()
    statistics = capture(model, graph, tokens, needs=set(STATISTICS), kinds=KINDS)
    return score(model, graph, [name], statistics, seed=0, options=options)[name]


def read_by(model: PreTrainedModel, tokens: Tensor, name: str) -> np.ndarray:
    """What a module reads where there is no padding, (tokens, features)."""
    return inputs_of(model, tokens, name)[0][(tokens != 0).flatten().numpy()]
