"""What onnxruntime is given at every step; stands as it is in the program that people copy."""

from __future__ import annotations

from typing import Any

import numpy as np


def step(graph: Any, ids: Any, start: int, cache: dict[str, Any]) -> dict[str, Any]:
    """Outputs by name for tokens from place `start` on; the cache among them goes into the next step."""
    places = np.broadcast_to(np.arange(start, start + ids.shape[1]), ids.shape).copy()
    given = {
        "input_ids": ids,
        "position_ids": places,
        "cache_position": places[0],
        "attention_mask": np.ones((ids.shape[0], start + ids.shape[1]), dtype=np.int64),
        **{f"input.{name}": value for name, value in cache.items()},
    }
    values = graph.run(None, {each.name: given[each.name] for each in graph.get_inputs()})
    names = [each.name.removeprefix("output.") for each in graph.get_outputs()]
    return dict(zip(names, values, strict=True))
