"""What a run will hold on the device that it takes on this machine, told before its weights are read."""

from __future__ import annotations

import psutil

from core.devices.memory import free_memory
from core.devices.picked import multiplied_in, pick_device
from core.errors import PruneError
from core.memory.bare import sizes_of
from core.memory.forecast import Forecast, Place, forecast
from core.spec.run import RunSpec


def held(spec: RunSpec) -> float | None:
    """What a run will hold at most, in GiB; None where `foreseen` cannot say."""
    told = foreseen(spec)
    return told.gib if told else None


def foreseen(spec: RunSpec) -> Forecast | None:
    """What a run will hold, None where that cannot be said: weights rest elsewhere, or there are none.

    What is free counts what this process holds already, since it becomes the run's.
    """
    bare = spec.goal == "explore" and spec.explore.config_only
    if spec.goal == "export" or bare or spec.model.lent:
        return None
    try:
        device, shapes = pick_device(spec.model.device), sizes_of(spec.model)
    except PruneError:  # which the run itself will meet, and say
        return None
    own = 0 if device.type == "cuda" else psutil.Process().memory_info().rss
    free = free_memory(device) + own if spec.cluster.here else None
    return forecast(spec, shapes, Place(str(device), free), bf16=multiplied_in("auto", device) == "bf16")
