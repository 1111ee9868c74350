"""Factors of residual channels, multiplied in where the channels are written.

Source: NutePrune (arXiv:2402.09773), Eq. 1 and 2: an attention and a feed-forward block end in z_hid, and so
does the embedding in the released code. Whatever reads the stream then has each factor in it once, and a
decoder layer gives what Eq. 6 compares.
"""

from __future__ import annotations

from torch import nn
from torch.utils.hooks import RemovableHandle

from core.graph.places import owner_of, writes_last_dim
from core.graph.records import Group
from core.surgery.factors import Features, Mask, mask_output, mask_weight
from core.surgery.norms import is_norm


def mask_stream(model: nn.Module, group: Group, mask: Mask) -> tuple[list[RemovableHandle], bool]:
    """Multiply the channels of a residual group by their factors, where they are written.

    Returns:
        The hooks, and whether a channel at 0 is silent then wherever it is read: all that writes it is
        multiplied, and no norm adds to a channel or counts how many there are.
    """
    hooks, modules = list[RemovableHandle](), set[nn.Module]()
    silent = all(norm.statistic == "rms" for norm in group.norms)
    for member in group.members:
        owner, attribute = owner_of(model, member.parameter)
        size = model.get_parameter(member.parameter).shape[member.dim]
        if member.role in ("layer1", "embedding") and writes_last_dim(owner, attribute, member.dim):
            modules.add(owner)
            hooks.append(mask_output(owner, Features(size, [(mask, member)])))
        elif member.role == "layer1":
            hooks += mask_weight(owner, attribute, member.dim, size, [(mask, member)])
        elif member.role == "embedding":
            silent = False
    vectors = [owner_of(model, member.parameter) for member in group.members if member.role == "vector"]
    scales = [is_norm(owner) and getattr(owner, "bias", None) is None for owner, _ in vectors]
    covered = [owner in modules for owner, _ in vectors]
    return hooks, silent and all(a or b for a, b in zip(scales, covered, strict=True))
