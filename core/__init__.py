"""The pruning engine, for Python: what `docs/python.md` uses. Only this is promised to stay, and
`core.export`, which the card of every saved model names.

A name is imported when it is first used, so that specs, events and plans can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.criteria.scoring import score_units
    from core.graph.discover import discover
    from core.models.load import load
    from core.models.saved import from_pretrained, save
    from core.models.windows import calibration_windows
    from core.plan.allocation import allocate
    from core.spec.run import RunSpec
    from core.stages.accompany import run
    from core.surgery.masks import masked
    from core.surgery.operate import cut

#: In the order of the work: a model becomes groups, scores, a plan, a smaller model; or all of it in a run.
__all__ = [  # noqa: RUF022
    "load",
    "discover",
    "calibration_windows",
    "score_units",
    "allocate",
    "masked",
    "cut",
    "save",
    "from_pretrained",
    "RunSpec",
    "run",
]
_HOMES = {
    "load": "core.models.load",
    "discover": "core.graph.discover",
    "calibration_windows": "core.models.windows",
    "score_units": "core.criteria.scoring",
    "allocate": "core.plan.allocation",
    "masked": "core.surgery.masks",
    "cut": "core.surgery.operate",
    "save": "core.models.saved",
    "from_pretrained": "core.models.saved",
    "RunSpec": "core.spec.run",
    "run": "core.stages.accompany",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return list(__all__)
