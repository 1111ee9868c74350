"""What the engine is asked, and the process that answers."""

from __future__ import annotations

import psutil

PROMPT = "the of to and"


def child() -> psutil.Process:
    """The process of the only engine that runs."""
    (found,) = [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]
    return found
