"""Processes of one launch: the first does the run, and calls the others where it trains.

They leave each other words in the store that torch keeps for a launch: who they are, which training is next,
who has loaded its model, and how it all ended.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from accelerate.utils import patch_environment
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from core.errors import LaunchError
from core.graph.places import tied_names
from core.models.load import Loaded
from core.recover import team as teams
from core.recover.shards import Frozen, Shards
from core.recover.team import LOST, PATIENCE, Team, accelerator
from core.runs.company import Company
from core.runs.processes import alive, describe_exit, host, started_at
from core.stages.work import Work

LOOK_S = 0.2
#: A process whose connection broke is gone after this long at most.
_GONE_S = 10.0
#: Where the first says how the command ended, and the others that they leave.
_END, _LEFT = "end", "left"
_NO_LAUNCHER = "The launcher that started these processes is gone; start them again, and resume the run."


class LeaderGoneError(LaunchError):
    """The first process is gone; whoever started it says why."""


class Meeting:
    """This process among those of its launch. Raises LaunchError if they cannot meet."""

    def __init__(self, mine: Company) -> None:
        self.mine, self._trainings = mine, 0
        self._store: Store = _store(mine)
        pid = os.getpid()
        self._tell(f"member/{mine.rank}", json.dumps([host(), pid, started_at(pid)]))

    def _tell(self, key: str, word: str = "") -> None:
        with self._reached():
            self._store.set(key, word)

    def _told(self, key: str) -> str | None:
        with self._reached():
            return self._store.get(key).decode() if self._store.check([key]) else None

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise (LeaderGoneError(LOST) if self.mine.rank else LaunchError(_NO_LAUNCHER)) from error

    # What the first one does.

    def call(self, run_dir: str, training: str) -> None:
        """Call the others to a training of a run."""
        self._trainings += 1
        self._tell(f"{self._training}/called", json.dumps([run_dir, training]))

    def gather(self, check_stop: Callable[[], None]) -> None:
        """Wait until all have loaded their models, and let them begin.

        Raises:
            LaunchError: one has failed, or is gone.
        """
        keys = [f"{self._training}/ready/{rank}" for rank in range(1, self.mine.size)]
        while any(self._told(key) is None for key in keys):
            if why := self.why_lost():
                raise LaunchError(why)
            check_stop()
            time.sleep(LOOK_S)
        self._tell(f"{self._training}/begin")

    def call_off(self) -> None:
        """The training is over, for those who still load; the others know."""
        with suppress(LaunchError):
            self._tell(f"{self._training}/over")

    def why_lost(self, wait_s: float = 0.0) -> str:
        """Which other process failed or is gone; empty if all are there and nobody waits for one to go."""
        deadline = time.monotonic() + wait_s
        while True:
            for rank in range(1, self.mine.size):
                # Those that only lost touch with the first that died say nothing, and are not to blame.
                if why := self._told(f"failed/{rank}"):
                    return f"Process {rank + 1} of {self.mine.size} failed: {why}"
                if self._gone(rank):
                    return f"Process {rank + 1} of {self.mine.size} {describe_exit(None)}."
            if time.monotonic() >= deadline:
                return LOST if wait_s else ""
            time.sleep(LOOK_S)

    def _gone(self, rank: int) -> bool:
        where, pid, since = json.loads(self._told(f"member/{rank}") or '["", 0, 0]')
        return where == host() and not alive(pid, since)

    def dismiss(self, word: str) -> None:
        """Say how it ended, and wait for those who are there to leave."""
        deadline = time.monotonic() + _GONE_S
        with suppress(LaunchError):
            self._tell(_END, word)
            left = [f"{_LEFT}/{rank}" for rank in range(1, self.mine.size)]
            while any(self._told(key) is None for key in left) and time.monotonic() < deadline:
                if any(self._gone(rank) for rank in range(1, self.mine.size)):
                    return
                time.sleep(LOOK_S)

    # What the others do.

    def called(self) -> tuple[str, str] | str:
        """The next training, as the run's folder and a name; or the word with which the first ended.

        Raises:
            LeaderGoneError: the first is gone.
        """
        self._trainings += 1
        key = self._first_of(f"{self._training}/called", _END)
        if key == _END:
            self._tell(f"{_LEFT}/{self.mine.rank}")
            return self._told(key) or ""
        run_dir, training = json.loads(self._told(key) or "")
        return run_dir, training

    def ready(self) -> bool:
        """Say that the model is loaded, and wait; whether the training begins. Raises LeaderGoneError."""
        self._tell(f"{self._training}/ready/{self.mine.rank}")
        return self._first_of(f"{self._training}/begin", f"{self._training}/over").endswith("begin")

    def failed(self, why: str) -> None:
        """Leave a last word for the first, which may be gone."""
        with suppress(LaunchError):
            self._tell(f"failed/{self.mine.rank}", why)

    def _first_of(self, *keys: str) -> str:
        while True:
            for key in keys:
                if self._told(key) is not None:
                    return key
            if self._gone(0):
                raise LeaderGoneError(LOST)
            time.sleep(LOOK_S)

    # What all do.

    @property
    def _training(self) -> str:
        return f"training/{self._trainings}"

    @contextmanager
    def team(self, device: torch.device, precision: str, *, sharded: bool = False) -> Iterator[Team]:
        """All of them as the team of this training, until the block ends. Raises LostTouchError."""
        store = PrefixStore(f"{self._training}/gloo", self._store)

        def why_lost() -> str:
            return LOST if self.mine.rank else self.why_lost(_GONE_S)

        with teams.joined(self.mine, store, device, precision, why_lost, sharded) as team:
            yield team

    def spread(self, team: Team, model: Any | None) -> dict[str, torch.Tensor]:
        """The weights of the first one's model, on the CPU; the others give None. Raises LostTouchError."""
        key = f"{self._training}/weights"
        if model is not None:
            aliases = tied_names(model)
            values = {name: value for name, value in model.state_dict().items() if name not in aliases}
            self._tell(key, json.dumps([[name, [*v.shape], str(v.dtype)] for name, v in values.items()]))
        else:
            values = {
                name: torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")))
                for name, shape, dtype in json.loads(self._told(self._first_of(key)) or "")
            }
        return {name: team.spread(value) for name, value in values.items()}


#: Where the processes of a launch leave words, by its address, and how often this one has gone there.
_stores: dict[str, tuple[Store, Iterator[int]]] = {}


def _store(mine: Company) -> Store:
    """Where they meet this time. Raises LaunchError if they cannot."""
    at = f"{mine.variables['MASTER_ADDR']}:{mine.variables['MASTER_PORT']}"
    if at not in _stores:
        try:
            with patch_environment(**mine.variables):
                store, _, _ = next(iter(rendezvous("env://", mine.rank, mine.size, timeout=PATIENCE)))
        except (RuntimeError, ValueError) as error:
            raise LaunchError(
                f"The {mine.size} processes of this launch cannot meet at {at}: {error}"
            ) from error
        _stores[at] = (store, itertools.count())
    store, times = _stores[at]
    return PrefixStore(f"pruning/{next(times)}", store)


#: The launch that this process is one of, if it is.
_met: list[Meeting] = []


def meet(mine: Company) -> Meeting:
    """Meet the others of a launch, once. Raises LaunchError."""
    _met[:] = [Meeting(mine)]
    return _met[0]


@contextmanager
def team(
    work: Work, training: str, loaded: Loaded, precision: str, *, cut: bool = False, sharded: bool = False
) -> Iterator[Team]:
    """Whoever trains, led by this process, until the block ends.

    Args:
        training: what it is called, for those who are called; precision: see `accelerator`.
        cut: whether the others need this model's weights, because no file holds what was cut.
        sharded: whether weights are to be sharded, see `shards`.

    Raises:
        LaunchError: another process failed, or is gone.
    """
    if not _met:
        yield Team(accelerator(loaded.device, precision))
        return
    meeting = _met[0]
    meeting.call(str(work.run_dir.absolute()), training)
    try:
        meeting.gather(work.recorder.check_stop)
        with meeting.team(loaded.device, precision, sharded=sharded) as ours:
            work.recorder.message(f"{ours.size} processes train together")
            if cut:
                meeting.spread(ours, loaded.model)
            yield ours
    finally:
        meeting.call_off()


def shards(work: Work, team: Team, models: Sequence[Frozen], device: torch.device) -> Shards:
    """The weights of models that are sharded from now on, and word of how much is held where."""
    ours = Shards(team, models, device)
    if ours:
        held, whole = ours.held()
        work.recorder.message(
            f"Weights that are not trained are sharded: {held / whole:.1%} of them, "
            f"{held / 2**20:,.1f} MiB, are with this process"
        )
    elif models:
        work.recorder.message("One process trains, so that no weights are sharded")
    return ours


def part() -> None:
    """Be of no launch any more."""
    _met.clear()


def why_lost() -> str:
    """Which other process of this launch failed or is gone; empty if there is none."""
    return _met[0].why_lost() if _met else ""
