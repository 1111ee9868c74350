"""Which GPUs this machine has and who holds their memory, as nvidia-smi tells: torch would start CUDA."""

from __future__ import annotations

import csv
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

GIB = 2**10  # nvidia-smi counts in MiB
#: What was told is true for so long.
FRESH_S = 3.0
#: It answers within a second, or its driver hangs.
ANSWER_S = 5.0
_CARDS = "index,uuid,name,memory.used,memory.total,utilization.gpu"
_HOLDERS = "gpu_uuid,pid,process_name,used_memory"


@dataclass(frozen=True)
class Holder:
    """A process that holds memory of a card."""

    pid: int
    name: str
    gib: float | None


@dataclass(frozen=True)
class Gpu:
    """One card; `busy` is the share of the last moment in which it computed, in [0, 1]."""

    index: int
    name: str
    used_gib: float
    total_gib: float
    busy: float | None
    holders: tuple[Holder, ...] = ()

    @property
    def device(self) -> str:
        """As `--device` takes it."""
        return f"cuda:{self.index}"


def gpus() -> tuple[Gpu, ...]:
    """The NVIDIA cards of this machine; none where there is no nvidia-smi or it does not answer."""
    return _told(int(time.monotonic() / FRESH_S))


@lru_cache(maxsize=1)
def _told(moment: int) -> tuple[Gpu, ...]:
    program = shutil.which("nvidia-smi")
    return read_gpus(lambda what: _ask(program, what)) if program else ()


def _ask(program: str, what: str) -> str:
    command = [program, what, "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def read_gpus(ask: Callable[[str], str]) -> tuple[Gpu, ...]:
    """The cards and their holders, from what `ask` answers to nvidia-smi's queries."""
    cards = {
        uuid: Gpu(int(index), name, _number(used, GIB) or 0.0, _number(total, GIB) or 0.0, _number(busy, 100))
        for index, uuid, name, used, total, busy in _rows(ask(f"--query-gpu={_CARDS}"), 6)
    }
    if cards:
        for uuid, pid, name, held in _rows(ask(f"--query-compute-apps={_HOLDERS}"), 4):
            if uuid in cards:
                holder = Holder(int(pid), name, _number(held, GIB))
                cards[uuid] = replace(cards[uuid], holders=(*cards[uuid].holders, holder))
    return tuple(sorted(cards.values(), key=lambda card: card.index))


def _rows(text: str, width: int) -> Iterable[list[str]]:
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return (row for row in rows if len(row) == width)


def _number(text: str, of: float) -> float | None:
    """`[N/A]` and its like are no numbers."""
    try:
        return float(text) / of
    except ValueError:
        return None
