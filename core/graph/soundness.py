"""Whether a unit can go without disturbing the others: operations that look across units."""

from __future__ import annotations

import numpy as np

from core.graph.labels import Across, Ints, LabelStore
from core.graph.records import Norm

#: Kinds that are shown, and why no unit of them goes.
NOT_OFFERED = {
    "head_dim_pair": "found, not offered: every head of a layer must keep the same head_dim",
    "expert": "found, not offered: prune the channels of the experts instead",
}
_STATISTICS = {"rms", "mean", "variance", "length"}


def judge(
    store: LabelStore, kind: str, units: list[Ints]
) -> tuple[str | None, tuple[Norm, ...], tuple[str, ...]]:
    """Look at every operation that runs across the units of a group.

    Returns:
        Why the units cannot go (None if they can), the norms to rescale, and the modules in which
        fixed numbers per unit enter.
    """
    if kind in NOT_OFFERED:
        return NOT_OFFERED[kind], (), ()
    owner = store.owners(units)
    statistics: dict[str, set[str]] = {}
    constants: dict[str, None] = {}
    for across in store.across:
        if not _crosses(store, owner, across):
            continue
        if across.kind == "grid":
            if kind in ("query_head", "kv_group") or _stays_a_grid(store, owner, across):
                continue
            return _because(across), (), ()
        if across.kind in _STATISTICS:
            statistics.setdefault(across.module, set()).add(across.kind)
        elif across.kind == "constant" and kind in ("query_head", "kv_group") and _on_scores(store, across):
            constants.setdefault(across.module)
        else:
            return _because(across), (), ()
    norms = []
    for module, kinds in statistics.items():
        if kinds == {"mean"}:
            why = f"module '{module}' takes the mean over the units, which changes when some are gone"
            return why, (), ()
        if kinds != {"length"}:
            norms.append(Norm(module, "rms" if kinds <= {"rms", "length"} else "layer"))
    return None, tuple(norms), tuple(constants)


def _crosses(store: LabelStore, owner: Ints, across: Across) -> bool:
    """Whether one line holds labels of a unit beside labels of another unit, or of none."""
    lines = store.find(across.lines)
    who = np.where(lines == 0, -2, owner[lines])
    low = np.where(who == -2, np.iinfo(np.int64).max, who).min(axis=1)
    high = who.max(axis=1)
    return bool(((high >= 0) & (low != high)).any())


def _stays_a_grid(store: LabelStore, owner: Ints, across: Across) -> bool:
    """Whether channels laid out in several dimensions lose whole rows of one of them."""
    who = owner[store.find(across.lines)].reshape(-1, *across.shape)
    for dim in range(1, who.ndim):
        line = np.moveaxis(who, dim, 1).reshape(len(who), who.shape[dim], -1)
        if (line == line[:, :, :1]).all():
            return True
    return False


def _on_scores(store: LabelStore, across: Across) -> bool:
    scores = [store.find(product.scores) for product in store.products]
    return bool(np.isin(store.find(across.lines), np.concatenate([*scores, [0]])).all())


def _because(across: Across) -> str:
    module, op = f"module '{across.module}'", across.what
    what = {
        "softmax": f"a softmax runs across the units in {module}",
        "choice": f"{module} chooses between the units by their values ({op})",
        "grid": f"{module} lays the units out in a grid ({op}), which has no room for gaps",
        "constant": f"fixed numbers, one per unit, enter in {module} ({op})",
    }
    return what.get(across.kind, f"in {module} the units meet {op}, which cannot be followed")
