"""Give back what closed pages held: a page that is kept up would grow by all of it otherwise."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time

#: Seconds between two times.
EVERY_S = 30.0


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
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    while True:
        time.sleep(EVERY_S)
        gc.collect()
        if trim is not None:
            trim(0)
