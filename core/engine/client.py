"""The caller's side of a long-lived process that holds models for generation and what-if masks.

Nothing here needs torch: calls go by name to `core.engine.host` in a process of its own, one at a
time. If it dies, the caller is told and the next call starts a new one. It ends when this process does.
"""

from __future__ import annotations

import itertools
import multiprocessing
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from core.errors import LaunchError

Removed = Mapping[str, Sequence[int]]
Event = dict[str, Any]
_Stream = SimpleQueue[Any]
_DIED = (
    "The engine has ended in the middle of this, possibly out of memory, and its models are gone. "
    "Try again: a fresh one is started."
)


def _start(channel: Connection, device: str, dtype: str) -> None:
    """In the child: import torch and what needs it, once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes us
    from core.engine import host

    host.start(channel, device, dtype)


def _call(name: str, call: int, arguments: dict[str, Any]) -> Any:
    """In the child: call `core.engine.host` by name, so that the parent need not import it."""
    from core.engine import host

    return host.answer(name, call, arguments)


class _Child:
    """One process, and the channel to it: events come out, calls to stop go in."""

    def __init__(self, device: str, dtype: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._channel, theirs = context.Pipe()
        self._pool = ProcessPoolExecutor(1, context, _start, (theirs, device, dtype))
        self._pool.submit(int)  # starts the process, which then has its end of the channel
        theirs.close()
        self._streams: dict[int, _Stream] = {}
        self._sending = threading.Lock()
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        """Pass events on to the streams that wait for them, until the child is gone."""
        with suppress(EOFError, OSError):
            while True:
                call, event = self._channel.recv()
                if (stream := self._streams.get(call)) is not None:
                    stream.put(event)
        self._channel.close()

    def submit(self, name: str, call: int, arguments: dict[str, Any], stream: _Stream | None) -> Future[Any]:
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


class Engine:
    """Models in a process of their own; every method may be called from any thread.

    Methods that need a model load it first if it is not in memory, which holds at most one dense and one
    pruned model. They raise the PruneError of whatever went wrong, and LaunchError if the process died.
    """

    def __init__(self, device: str = "auto", dtype: str = "auto") -> None:
        self._device, self._dtype = device, dtype
        self._child: _Child | None = None
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: set[int] = set()
        self._cards: dict[str, dict[str, Any]] = {}

    def load(self, source: str) -> dict[str, Any]:
        """Load a model and return its card."""
        return dict(self._ask("load", source=source))

    def card(self, source: str) -> dict[str, Any]:
        """The card of a model, without loading its weights."""
        return dict(self._ask("card", source=source))

    def perplexity(
        self,
        source: str,
        text: str = "bundled",
        *,
        window: int = 256,
        tokens: int = 2048,
        removed: Removed | None = None,
    ) -> dict[str, Any]:
        """Measure perplexity: the fields of `core.results.perplexity.Perplexity`, and {"stderr"}.

        Args:
            removed: group id -> units that a mask silences during this call.
        """
        arguments = {"source": source, "text": text, "window": window, "tokens": tokens}
        return dict(self._ask("perplexity", **arguments, removed=_plain(removed)))

    def generate(
        self,
        source: str,
        prompt: str,
        *,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        chat: bool = False,
        removed: Removed | None = None,
        int8: bool = False,
    ) -> Iterator[Event]:
        """Yield {"piece"} as the model writes, and at last what it took.

        The last event is {"done", "tokens", "seconds", "tokens_per_second", "stopped"}. Whoever stops
        reading, stops the model too.

        Args:
            removed: group id -> units that a mask silences during this call.
            int8: use the model with its weights in 8 bits, which the engine holds as another model.
        """
        settings = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "chat": chat,
        }
        arguments = {"source": source, "prompt": prompt, "removed": _plain(removed), "int8": int8, **settings}
        return self._stream("generate", arguments)

    def attention(self, source: str, text: str, layer: int, heads: Sequence[int]) -> dict[str, Any]:
        """Show what heads of one layer attend to: {"tokens", "maps", "cut"}.

        `maps` holds probabilities, (heads, queries, keys); `cut` is the number of tokens left out at the
        end of a long text.
        """
        return dict(self._ask("attention", source=source, text=text, layer=layer, heads=list(heads)))

    def stop(self) -> None:
        """Stop all generation and measurement; a text keeps what it has so far."""
        with self._lock:
            child, waiting = self._child, list(self._waiting)
        if child is not None:
            for call in waiting:
                child.stop(call)

    def state(self) -> dict[str, Any]:
        """{"started", "busy", "models": {"dense" or "pruned": card}} as of the last answer; never waits."""
        return {"started": self._child is not None, "busy": bool(self._waiting), "models": dict(self._cards)}

    def release(self) -> None:
        """Free the models to make room, once the calls before this one are done."""
        if self._child is not None:
            self._ask("release")

    def close(self) -> None:
        """End the process at once. A later call starts a new one."""
        with self._lock:
            child, self._child, self._cards = self._child, None, {}
        if child is not None:
            child.end()

    def _ask(self, name: str, **arguments: Any) -> Any:
        child, call, future = self._submit(name, arguments)
        return self._result(child, call, future)

    def _stream(self, name: str, arguments: dict[str, Any]) -> Iterator[Event]:
        stream: _Stream = SimpleQueue()
        child, call, future = self._submit(name, arguments, stream)
        try:
            while True:
                item = stream.get()
                if isinstance(item, Future):  # may arrive before the last events, unless it failed
                    self._result(child, call, item)
                    continue
                if "done" in item:
                    self._result(child, call, future)
                yield item
                if "done" in item:
                    return
        finally:
            if not future.done():
                child.stop(call)
            child.forget(call)
            self._waiting.discard(call)

    def _submit(
        self, name: str, arguments: dict[str, Any], stream: _Stream | None = None
    ) -> tuple[_Child, int, Future[Any]]:
        call = next(self._numbers)
        with self._lock:
            for _ in range(2):  # a process that died while idle is replaced silently
                child = self._child or _Child(self._device, self._dtype)
                try:
                    future = child.submit(name, call, arguments, stream)
                except BrokenProcessPool:
                    self._child, self._cards = None, {}
                    continue
                self._child = child
                self._waiting.add(call)
                return child, call, future
        raise LaunchError(_DIED)

    def _result(self, child: _Child, call: int, future: Future[Any]) -> Any:
        try:
            value, cards = future.result()
        except (BrokenProcessPool, CancelledError) as error:
            with self._lock:
                if self._child is child:
                    self._child, self._cards = None, {}
            raise LaunchError(_DIED) from error
        finally:
            self._waiting.discard(call)
        with self._lock:
            if self._child is child:
                self._cards = cards
        return value


def _plain(removed: Removed | None) -> dict[str, list[int]] | None:
    return {group: [int(unit) for unit in units] for group, units in removed.items()} if removed else None
