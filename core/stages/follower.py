"""`python -m core.stages.follower RUN_DIR PID`: train along with process PID, which leads a run.

A follower reads the run directory, where the leader leaves everything that a training starts or goes on
from, and writes nothing but lines of the log. It ends with its leader, however that ends.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from transformers.utils import logging

from core.devices.picked import pick_device
from core.errors import LaunchError, PruneError
from core.models import load as models
from core.recover.loop import Loop
from core.recover.team import HOST, PATIENCE, Team, devices, joined, last_word, ready
from core.runs.artifacts import read_graph, read_spec
from core.stages.needs import fitted_settings
from core.stages.nuteprune import checkpoint_of, load_windows, training_of
from core.stages.worker import translate


def main(run_dir: Path, leader: int) -> int:
    """Follow to the last step. Returns the exit code."""
    _end_with(leader)
    logging.disable_progress_bar()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = TCPStore(HOST, int(os.environ["MASTER_PORT"]), size, False, PATIENCE, wait_for_workers=False)
    try:
        _follow(run_dir, rank, store)
    except LaunchError:
        return 1  # another one is gone: the leader, or one that the leader names
    except Exception as error:
        told = translate(error, run_dir)
        if not isinstance(told, PruneError):
            traceback.print_exc()
        with suppress(RuntimeError):  # the leader may be gone
            store.set(last_word(rank), str(told))
        return 2
    return 0


def _end_with(leader: int) -> None:
    """End this process soon after its leader has, which then is its parent no more."""

    def watch() -> None:
        while os.getppid() == leader:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="leader", daemon=True).start()


def _follow(run_dir: Path, rank: int, store: TCPStore) -> None:
    spec = read_spec(run_dir)
    settings = fitted_settings(run_dir)
    where = devices(pick_device(spec.model.device), settings.processes)
    loaded = models.load(**{**vars(spec.model), "device": str(where[rank])})
    graph = read_graph(run_dir)
    store.set(ready(rank), "")
    with joined(store, rank, where, settings.precision) as accelerator:
        team = Team(accelerator)
        team.wait()  # for the checkpoint and the windows
        windows = load_windows(run_dir)
        training = training_of(spec, run_dir, loaded, graph, settings, windows, None, leads=False)
        loop = Loop(training, team, checkpoint_of(run_dir))
        loop.resume()
        while loop.state.step < settings.steps:
            loop.step()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
