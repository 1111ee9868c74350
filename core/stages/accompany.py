"""Processes that were started together: one does what is asked for, the others train along.

`python -m core` and `core.run` go through here where a launcher started several of them. `python -m
core.stages.accompany RUN_DIR HOST PID STARTED` is what a run starts with torchrun to have some: for the
process that waits.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch.distributed as dist
from transformers.utils import logging

from core.devices.picked import pick_device
from core.errors import LaunchError, PruneError
from core.models import load as models
from core.recover.team import LostTouchError, devices
from core.runs import launch
from core.runs.artifacts import read_spec
from core.runs.company import Company, join, leave
from core.runs.events import Event
from core.runs.processes import alive, host
from core.runs.recorder import Mute
from core.spec.run import RunSpec
from core.stages import nuteprune, recover, worker
from core.stages.needs import fitted_settings, noted_recipe
from core.stages.together import LeaderGoneError, Meeting, meet, part
from core.stages.work import Work
from core.stages.worker import kept, translate


def accompany(mine: Company, lead: Callable[[], int]) -> int:
    """Do what is asked for, or train along with the process that does. Returns the exit code of all.

    Args:
        lead: does it, and returns the exit code.
    """
    try:
        meeting = meet(mine)
    except LaunchError as error:
        print(error, file=sys.stderr)
        return 2
    if mine.rank:
        try:
            return int(_follow(meeting))
        except LeaderGoneError:
            return 1
    code = lead()
    meeting.dismiss(str(code))
    return code


def run(
    spec: RunSpec,
    runs_dir: str | Path = "runs",
    *,
    on_begin: Callable[[Path], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Path:
    """Do what a spec asks in this process, see `core.stages.worker.run`.

    Where a launcher has started several, all call this alike: the first does it, and the others train along.

    Returns:
        The run's directory, to each of them.

    Raises:
        LaunchError: they cannot meet, or this is not the first, which failed or stopped and says why.
    """
    lead = partial(worker.run, spec, runs_dir, on_begin=on_begin, on_event=on_event)
    if (mine := join()) is None:
        return lead()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _require_ungrouped()
        return _ended(_follow(meet(mine))) if mine.rank else _lead(meet(mine), lead)
    finally:
        part()
        leave()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _require_ungrouped() -> None:
    """Raises LaunchError where a script has made a group of its processes itself."""
    if dist.is_initialized():
        raise LaunchError(
            "torch.distributed is initialised in this process, and a run makes groups of its own; call "
            "core.run before init_process_group or accelerate, or after destroy_process_group."
        )


def _lead(meeting: Meeting, lead: Callable[[], Path]) -> Path:
    """Do a run; the others are told how it ended."""
    word = {"failed": "it was ended"}
    try:
        run_dir = lead()
        word = {"run_dir": str(run_dir.absolute())}
        return run_dir
    except Exception as error:
        word = {"failed": str(error)}
        raise
    finally:
        meeting.dismiss(json.dumps(word))


def _ended(word: str) -> Path:
    """The directory of a run that another process did. Raises LaunchError if it did not get there."""
    told = json.loads(word)
    if "failed" in told:
        raise LaunchError(f"The first process of this launch did not finish its run: {told['failed']}")
    return Path(told["run_dir"])


def _follow(meeting: Meeting) -> str:
    """Train along wherever the first process trains, until it has ended. Returns its last word.

    Raises:
        LeaderGoneError: it is gone.
    """
    # Whoever ends the launch ends the first process, which ends the others after its step.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    logging.disable_progress_bar()
    while not isinstance(called := meeting.called(), str):
        _try_along(meeting, Path(called[0]), called[1])
    return called


def _try_along(meeting: Meeting, run_dir: Path, training: str) -> None:
    """Train along once; why that failed is left for the first process, which ends the run."""
    try:
        if not run_dir.is_dir():
            raise LaunchError(
                f"{host()} has no folder {run_dir}; runs must be on a disk that all machines share."
            )
        _train_along(meeting, run_dir, training)
    except (LostTouchError, LeaderGoneError):
        return  # another one has failed, which has its own word
    except Exception as error:
        told = translate(error, run_dir)
        if not isinstance(told, PruneError):
            traceback.print_exc()
        meeting.failed(str(told))


def _train_along(meeting: Meeting, run_dir: Path, training: str) -> None:
    """Raises LostTouchError, LeaderGoneError if another one is gone; whatever keeps this one from it."""
    spec, mine = read_spec(run_dir), meeting.mine
    launch.require_consent(run_dir, spec)
    where = devices(pick_device(spec.model.device), mine.local_size)[mine.local_rank]
    spec = replace(spec, model=replace(spec.model, device=str(where)))
    work = Work(spec, run_dir, Mute(run_dir))
    if training == nuteprune.FOLDER:
        settings = fitted_settings(run_dir)
        loaded = models.load(**vars(spec.model), resting=settings.shard_weights == "on")
        if meeting.ready():
            with meeting.team(where, settings.precision, sharded=settings.shard_weights == "on") as team:
                nuteprune.train_along(work, loaded, settings, team)
        return
    work = recover.of_control(work) if training == recover.CONTROL else work
    recipe = noted_recipe(work, training)
    loaded = recover.load_along(work, training, recipe)
    if meeting.ready():
        with meeting.team(where, recipe.precision, sharded=recipe.shard_weights == "on") as team:
            weights = meeting.spread(team, None) if recover.cuts(work, training) else {}
            recover.train_along(work, training, loaded, weights, recipe, team)


def main(run_dir: Path, waiting: tuple[str, int, float]) -> int:
    """Run the spec in a folder with the processes of this launch, for the one that waits for them."""
    mine = join()
    if mine is None:
        raise LaunchError("This is started by torchrun, by a run whose trainings are to be shared.")
    if waiting[0] == host():
        _end_with(waiting[1], waiting[2])

    def lead() -> int:
        kept(run_dir, waiting)
        return 0

    return accompany(mine, lead)


def _end_with(pid: int, started: float) -> None:
    """End this process soon after the one that waits for it has ended, however that came."""

    def watch() -> None:
        while alive(pid, started):
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, name="waits", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), (sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))))
