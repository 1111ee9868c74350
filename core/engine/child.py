"""The process of an engine, seen from the process that started it."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from core.errors import LaunchError, PruneError, StopRequested

Event = dict[str, Any]
Stream = SimpleQueue[Any]
DIED = (
    "The engine has ended in the middle of this, possibly out of memory, and its models are gone. "
    "Try again: a fresh one is started."
)
#: What a new process reads first, with all that needs it.
PROGRAM = "torch"


def _start(channel: Connection, where: Mapping[str, str]) -> None:
    """In the child: import torch and what needs it, once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes us
    from core.engine import host

    host.start(channel, where)


def _call(name: str, call: int, arguments: dict[str, Any]) -> Any:
    """In the child: call `core.engine.host` by name, so that the parent need not import it."""
    from core.engine import host

    return host.answer(name, call, arguments)


class Child:
    """One process, and the channel to it: events come out, calls to stop go in.

    Attributes:
        reading: the model that it is reading, at first its own program, or nothing. It can do nothing else
            meanwhile, so a read that is stopped, or takes longer than `load_limit_s`, ends the process.
    """

    def __init__(self, where: Mapping[str, str], load_limit_s: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._channel, theirs = context.Pipe()
        self._pool = ProcessPoolExecutor(1, context, _start, (theirs, where))
        others = set(multiprocessing.active_children())
        self._pool.submit(int)  # starts the process, which then has its end of the channel
        (self._process,) = set(multiprocessing.active_children()) - others
        theirs.close()
        self._streams: dict[int, Stream] = {}
        self._sending = threading.Lock()
        self._limit_s, self._clock = load_limit_s, threading.Timer(0, int)
        self._why: tuple[type[PruneError], str] = (LaunchError, DIED)
        self._watch(PROGRAM)  # until it says that it is reading nothing
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        """Pass events on to the streams that wait for them, until the child is gone."""
        with suppress(EOFError, OSError):
            while True:
                call, event = self._channel.recv()
                if "reading" in event:
                    self._watch(event["reading"])
                elif (stream := self._streams.get(call)) is not None:
                    stream.put(event)
        self._watch("")
        self._channel.close()

    def _watch(self, source: str) -> None:
        """Start the clock when a model begins to be read, and stop it when that has ended."""
        self._clock.cancel()
        self.reading = source
        if source:
            self._clock = threading.Timer(self._limit_s, self._give_up)
            self._clock.daemon = True
            self._clock.start()

    def _give_up(self) -> None:
        kept = "" if self.reading == PROGRAM else "; what was downloaded is kept"
        self._end_reading(
            LaunchError,
            f"{self.reading} could not be read within {self._limit_s:g} s and was given up{kept}. "
            "Try again, or start with a longer --load-limit.",
        )

    def stop_reading(self) -> bool:
        """End the process if it is reading a model; whether it was."""
        return self._end_reading(StopRequested, f"Stopped while {self.reading} was being read.")

    def _end_reading(self, kind: type[PruneError], text: str) -> bool:
        """Kill the process in the middle of a read: it may hang where nothing else reaches it."""
        if not self.reading:
            return False
        self._why = kind, text
        self._process.kill()
        return True

    def ended(self) -> PruneError:
        """What to raise for calls that this process did not answer."""
        kind, text = self._why
        return kind(text)

    def submit(self, name: str, call: int, arguments: dict[str, Any], stream: Stream | None) -> Future[Any]:
        """Queue a call. A stream receives its events, and then its future. Raises BrokenProcessPool."""
        if stream is not None:
            self._streams[call] = stream
        future = self._pool.submit(_call, name, call, arguments)
        if stream is not None:
            future.add_done_callback(stream.put)
        return future

    def forget(self, call: int) -> None:
        """Drop the stream of a call that nobody waits for any more."""
        self._streams.pop(call, None)

    def stop(self, call: int) -> None:
        """Stop a call at its next token."""
        self._send(call)

    def end(self) -> None:
        """End the process at once, whatever it does."""
        self._send(None)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _send(self, message: int | None) -> None:
        with self._sending, suppress(OSError):  # gone already
            self._channel.send(message)
