"""What the engine is asked, and the process that answers."""

from __future__ import annotations

import psutil

PROMPT = "the of to and"


def child() -> psutil.Process:
    """The process of the only engine that runs."""
    children = psutil.Process().children()
    (process,) = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    return process
