"""The attention of single heads is what the model itself returns."""

from __future__ import annotations

import pytest
import torch

from core.engine.attention import attention_maps
from core.errors import DataError, NotPrunableError
from tests.handmade import graph_of, ids, tiny


def test_maps_are_the_models_own_attention_and_leave_it_as_it_was() -> None:
    model = tiny()
    graph, text = graph_of(model), ids(model, batch=1)[0]
    before = (model.config._attn_implementation, model(text[None]).logits)
    maps = attention_maps(model, graph, text, 1, [3, 0])
    assert not any(module._forward_hooks for module in model.modules())
    model.set_attn_implementation("eager")
    wanted = model(text[None], output_attentions=True).attentions[1][0]
    model.set_attn_implementation(before[0])
    torch.testing.assert_close(maps, wanted[[3, 0]])
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, len(text)))
    assert torch.equal(model(text[None]).logits, before[1])


def test_what_is_not_there_is_refused() -> None:
    model = tiny()
    graph, text = graph_of(model), ids(model, batch=1)[0]
    with pytest.raises(DataError, match="heads 0 to 3, got 4"):
        attention_maps(model, graph, text, 0, [4])
    with pytest.raises(DataError, match="type a few words"):
        attention_maps(model, graph, text[:0], 0, [1])
    with pytest.raises(NotPrunableError, match="Layer 9"):
        attention_maps(model, graph, text, 9, [1])
