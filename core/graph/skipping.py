"""Whether a model runs without its blocks: tried once, without weights, with all of them gone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from core.graph.hooks import numbers_unseen, replaced
from core.graph.records import BLOCKS, Bypass, Group
from core.graph.rotary import frequencies_held


def tried(twin: nn.Module, groups: Sequence[Group]) -> list[Group]:
    """The same groups; those of the blocks that the model fails without are refused, and say why.

    Args:
        twin: the model on the meta device.
    """
    kinds = [kind for kind in BLOCKS if any(group.kind == kind and group.prunable for group in groups)]
    why = {kind: _failure(twin, [g for g in groups if g.kind == kind and g.prunable]) for kind in kinds}
    return [
        replace(group, prunable=False, reason=why[group.kind], members=(), bypass=())
        if group.prunable and why.get(group.kind)
        else group
        for group in groups
    ]


def _failure(twin: nn.Module, groups: Collection[Group]) -> str | None:
    """Why the model fails without these blocks, or None."""
    ways = [each for group in groups for each in group.bypass]
    modules = [twin.get_submodule(each.module) for each in ways]
    ids = torch.zeros(2, 7, dtype=torch.long, device="meta")
    try:
        with (
            replaced(modules, map(handing_on, ways)),
            frequencies_held(twin),
            numbers_unseen(),
            torch.no_grad(),
        ):
            twin(input_ids=ids, use_cache=False)
    except Exception as error:  # whatever the model's own code makes of it
        return f"the model's code fails without it: '{(str(error) or type(error).__name__).splitlines()[0]}'"
    return None


def handing_on(bypass: Bypass) -> Callable[..., Any]:
    """A forward that gives what the module's neighbours expect of a block that is gone."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        key = bypass.argument
        handed: Tensor = args[key] if isinstance(key, int) else kwargs[key]
        given = torch.zeros_like(handed) if bypass.gives == "zeros" else handed
        return (given, *[None] * (bypass.several - 1)) if bypass.several else given

    return forward
