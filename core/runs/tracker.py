"""`python -m core.runs.tracker NAME RUN_DIR`: tell a tracker the points that come in, a JSON list a line.

A process of its own, through accelerate's trackers: whatever they print, start or wait for is not the run's.
The first line holds the settings of the run; further ones are [name, value, step].
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from accelerate.state import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from core.runs.track import PROJECT

#: Seconds within which a tracker has to answer when it is first asked; by themselves they try for minutes.
_ANSWERS_S = 30


def main(name: str, run_dir: Path, lines: Iterable[str]) -> None:
    """Mirror every line until there are no more."""
    PartialState(cpu=True)  # accelerate wants one, and no card is needed for this
    coming = iter(lines)
    settings = json.loads(next(coming))
    with _within(_ANSWERS_S):
        tracker = _started(name, run_dir)
        tracker.store_init_configuration(settings)
    for line in coming:
        curve, value, step = json.loads(line)
        if name == "wandb":  # its steps must rise over all curves; ours belong to a curve each
            tracker.log({curve: value, f"{curve}/step": step})
        else:
            tracker.log({curve.replace(".", "/", 1): value}, step=round(step))
    tracker.finish()


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    """End this process where what is done takes longer.

    An exception would not do: a tracker takes it for that of its connection, and tries again.
    """

    def late(number: int, frame: FrameType | None) -> None:
        print(f"no answer within {seconds} s", flush=True)
        os._exit(1)

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _started(name: str, run_dir: Path) -> Any:
    """The tracker, with the run under its own name."""
    kind: Any = LOGGER_TYPE_TO_CLASS[name]
    run = run_dir.name
    # By itself it would take the folder that this program lies in.
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{run_dir.parent.absolute()}/mlflow.db")
    tracker = {
        "tensorboard": lambda: kind(run, logging_dir=run_dir / "tensorboard"),
        "trackio": lambda: kind(PROJECT, name=run, resume="allow", embed=False),
        "wandb": lambda: kind(PROJECT, name=run, id=run, resume="allow", dir=str(run_dir)),
        "mlflow": lambda: kind(PROJECT, run_name=run),
    }[name]()
    tracker.start()
    return tracker


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.stdin)
