"""Units that are chosen again keep the order of the plan's scope."""

from __future__ import annotations

import pytest
import torch

from core.capture.moments import ModuleMoments
from core.graph.discover import discover
from core.recover.rescoring import Rescoring
from tests.handmade import tiny

OUT = "model.layers.0.self_attn.o_proj"


@pytest.mark.parametrize(("scope", "goes"), [("local", 0), ("al_am", 2)])
def test_heads_are_chosen_again_as_their_scope_ranks_them(scope: str, goes: int) -> None:
    """By the sum of their channels, or under `al_am` by that of the squares: head 0 has one large channel."""
    model = tiny()
    graph, module = discover(model, name="tiny"), model.get_submodule(OUT)
    channels = torch.full((4, 8), 2.0)
    channels[0] = torch.tensor([8.0] + 7 * [0.5])
    channels[2] = 1.9
    moments = ModuleMoments({(f"{OUT}.weight", 1): module}, {})
    (inputs,) = moments.inputs.values()
    inputs.count, inputs.mean = 2, torch.zeros(32)
    inputs.squares = channels.flatten() / module.weight.detach().square().sum(dim=0)
    again = Rescoring("wifv", scope=scope)
    assert again.choose(model, graph, graph.group("L00.query_head"), (3,), moments) == (goes,)
