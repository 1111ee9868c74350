"""What is free where a run will compute, as far as this page knows without torch."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from core.devices.memory import free_here
from core.graph.records import Graph
from core.memory.forecast import GIB, Forecast, Place, forecast
from core.memory.shapes import shapes_of
from core.runs.gpus import gpus
from core.spec.run import RunSpec

#: What Linux calls the instructions for products in bfloat16 that torch uses.
_ABLE = {"amx_tile", "avx512_bf16"}


def foreseen(spec: RunSpec, graph: Graph) -> Forecast | None:
    """What a run of this model will hold; None where weights rest elsewhere, which is worked out by then."""
    if spec.model.lent:
        return None
    place = place_of(spec)
    return forecast(spec, shapes_of(graph), place, bf16=place.cuda or _multiplies_halves())


def place_of(spec: RunSpec) -> Place:
    """The device that a run will take, and what is free there."""
    asked = spec.model.device
    if not spec.cluster.here:
        cards = spec.cluster.gpus != 0 and asked != "cpu"
        return Place("a GPU of the cluster" if cards else "cpu", None)
    free = {card.device: card.total_gib - card.used_gib for card in gpus()}
    first = next(iter(free), "cpu")
    device = {"auto": first, "cuda": first}.get(asked, asked)
    return Place(device, int(free[device] * GIB) if device in free else free_here())


@lru_cache(maxsize=1)
def _multiplies_halves() -> bool:
    """Whether this machine's processor has such instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return bool(_ABLE & set(next((line for line in lines if line.startswith("flags")), "").split()))
