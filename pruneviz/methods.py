"""Which methods there are. The registry needs torch, so it is asked once through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from core.errors import LaunchError
from core.selection import MANUAL
from core.spec import ExploreSpec

ROOT = Path(__file__).resolve().parents[1]
_lock = threading.Lock()
_known: list[Method] = []


@dataclass(frozen=True)
class Method:
    """What people need to know of a method. `needs_data` is False where weights alone decide."""

    name: str
    paper: str = ""
    equation: str = ""
    summary: str = ""
    needs_data: bool = True


#: Ranks nothing, so the registry does not know it.
CHOSEN = Method(
    MANUAL, summary="Removes exactly the units written below; nothing is ranked.", needs_data=False
)


def names() -> list[str]:
    """Method names at once: those a standard analysis scores, until all are known."""
    return [*([method.name for method in _known] or ExploreSpec().criteria), MANUAL]


def ranking() -> list[str]:
    """Methods that score units, as far as they are known."""
    return [name for name in names() if name != MANUAL]


def find(name: str) -> Method | None:
    """What is known of a method so far."""
    return next((method for method in [*_known, CHOSEN] if method.name == name), None)


def all_methods(timeout_s: float = 180) -> list[Method]:
    """Every method, asked for once per dashboard; takes seconds the first time. Raises LaunchError."""
    with _lock:
        if not _known:
            _known.extend(_ask(timeout_s))
        return list(_known)


def _ask(timeout_s: float) -> list[Method]:
    command = [sys.executable, "-m", "core", "methods", "--json"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=True
        )
        return parse(done.stdout)
    except subprocess.CalledProcessError as error:
        raise LaunchError(f"The list of methods cannot be read: {error.stderr.strip()[-300:]}") from error
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
        raise LaunchError(f"The list of methods cannot be read: {error}; open the tab again.") from error


def parse(text: str) -> list[Method]:
    """Read what `python -m core methods --json` prints. Raises ValueError or KeyError.

    Methods that train are left out: the form has no fields for their presets and options yet.
    """
    return [
        Method(raw["name"], raw["paper"], raw["equation"], raw["summary"], bool(raw["needs"]))
        for raw in json.loads(text)["methods"]
        if not raw.get("trains")
    ]
