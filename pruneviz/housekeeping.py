"""Give back what closed pages held: a page that is kept up would grow by all of it otherwise."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from typing import Any

#: Seconds between two times.
EVERY_S = 30.0
#: Heaps that glibc's malloc may open, and bytes from which on a block is mapped by itself.
HEAPS, MAPPED = 2, 128 * 1024
#: What glibc calls these two.
_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3


def spare() -> None:
    """Have little kept of what is freed; call it before threads are started, each of which may open a heap.

    By default glibc opens eight heaps a core, and keeps ever larger blocks in them: a page of sixteen heaps
    held twice as much as was in use, in pieces between what was. One of Python's threads runs at a time, so
    that two heaps are enough.
    """
    choose = _of_glibc("mallopt")
    if choose is not None:
        choose(_M_ARENA_MAX, HEAPS)
        choose(_M_MMAP_THRESHOLD, MAPPED)


def start() -> None:
    """Begin, for as long as the process lives; call it once everything is imported and built.

    What is alive by now stays for good, and is not looked at again: a collection then takes milliseconds.
    What a page held is cyclic, and Python would wait with it until a quarter more objects are alive than
    there were; what was freed in the middle of a heap, glibc keeps until it is asked.
    """
    gc.collect()
    gc.freeze()
    threading.Thread(target=_keep, name="housekeeping", daemon=True).start()


def _keep() -> None:
    trim = _of_glibc("malloc_trim")
    while True:
        time.sleep(EVERY_S)
        gc.collect()
        if trim is not None:
            trim(0)


def _of_glibc(name: str) -> Any:
    """A function of the C library; None on a machine whose library has none of that name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
