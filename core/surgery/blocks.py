"""Whole blocks silenced or taken out, while the residual stream goes on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from core.graph.records import Bypass, Group
from core.surgery.factors import Mask, read
from core.surgery.modeling_pruned import Skipped


def mask_block(model: nn.Module, group: Group, mask: Mask) -> list[RemovableHandle]:
    """Multiply what a block adds to the stream by its factor, (1,)."""
    ends = [each for each in group.bypass if each.gives != "same"]
    return [
        model.get_submodule(each.module).register_forward_hook(_hook(each, mask), with_kwargs=True)
        for each in ends
    ]


def _hook(bypass: Bypass, mask: Mask) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        factor = read(mask)
        if factor is None:
            return out
        given = out[0] if bypass.several else out
        if bypass.gives == "zeros":
            given = given * factor.to(given)
        else:
            handed: Tensor = (
                args[bypass.argument] if isinstance(bypass.argument, int) else kwargs[bypass.argument]
            )
            given = handed + (given - handed) * factor.to(given)
        return (given, *out[1:]) if bypass.several else given

    return hook


def take_out(model: nn.Module, groups: Iterable[Group]) -> None:
    """Put what hands the stream on in the place of every module of these blocks."""
    for group in groups:
        for each in group.bypass:
            path, _, name = each.module.rpartition(".")
            stand_in = Skipped(each.gives, each.argument, each.several, each.cache)
            setattr(model.get_submodule(path), name, stand_in)
