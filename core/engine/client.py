"""The caller's side of a long-lived process that holds models for generation and what-if masks.

Nothing here needs torch: calls go by name to `core.engine.host` in a process of its own, one at a
time. If it dies, the caller is told and the next call starts a new one. It ends when this process does.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from queue import SimpleQueue
from typing import Any

from core.engine.child import DIED, Child, Event, Stream
from core.errors import LaunchError

Removed = Mapping[str, Sequence[int]]
#: Reading a model takes longer than this only where it is large and far away.
LOAD_LIMIT_S = 600.0


class Engine:
    """Models in a process of their own; every method may be called from any thread.

    Methods that need a model load it first if it is not in memory, which holds at most one dense and one
    pruned model. They raise the PruneError of whatever went wrong, LaunchError if the process died or took
    more than `load_limit_s` to read a model, and StopRequested if they were stopped without a result.
    """

    def __init__(
        self,
        device: str = "auto",
        dtype: str = "auto",
        load_limit_s: float = LOAD_LIMIT_S,
        device_map: str = "none",
        max_memory: str = "",
    ) -> None:
        self._where = {
            "device": device, "dtype": dtype, "device_map": device_map, "max_memory": max_memory
        }  # fmt: skip
        self._load_limit_s = load_limit_s
        self._child: Child | None = None
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
        adapter: str = "",
    ) -> Iterator[Event]:
        """Yield {"piece"} as the model writes, and at last what it took.

        The last event is {"done", "tokens", "seconds", "tokens_per_second", "stopped"}. Whoever stops
        reading, stops the model too.

        Args:
            removed: group id -> units that a mask silences during this call.
            int8: use the model with its weights in 8 bits, which the engine holds as another model.
            adapter: merged into its weights, which is another model, too.
        """
        settings = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "chat": chat,
        }
        which = {"source": source, "int8": int8, "adapter": adapter}
        arguments = {**which, "prompt": prompt, "removed": _plain(removed), **settings}
        return self._stream("generate", arguments)

    def attention(self, source: str, text: str, layer: int, heads: Sequence[int]) -> dict[str, Any]:
        """Show what heads of one layer attend to: {"tokens", "maps", "cut"}.

        `maps` holds probabilities, (heads, queries, keys); `cut` is the number of tokens left out at the
        end of a long text.
        """
        return dict(self._ask("attention", source=source, text=text, layer=layer, heads=list(heads)))

    def stop(self) -> None:
        """Stop all generation and measurement; a text keeps what it has so far.

        A model that is being read cannot be stopped so: the process is ended, and with it all its models.
        """
        with self._lock:
            child, waiting = self._child, list(self._waiting)
            if child is not None and child.stop_reading():
                self._child, self._cards = None, {}
                return
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
        stream: Stream = SimpleQueue()
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
        self, name: str, arguments: dict[str, Any], stream: Stream | None = None
    ) -> tuple[Child, int, Future[Any]]:
        call = next(self._numbers)
        with self._lock:
            for _ in range(2):  # a process that died while idle is replaced silently
                child = self._child or Child(self._where, self._load_limit_s)
                try:
                    future = child.submit(name, call, arguments, stream)
                except BrokenProcessPool:
                    self._child, self._cards = None, {}
                    continue
                self._child = child
                self._waiting.add(call)
                return child, call, future
        raise LaunchError(DIED)

    def _result(self, child: Child, call: int, future: Future[Any]) -> Any:
        try:
            value, cards = future.result()
        except (BrokenProcessPool, CancelledError) as error:
            with self._lock:
                if self._child is child:
                    self._child, self._cards = None, {}
            raise child.ended() from error
        finally:
            self._waiting.discard(call)
        with self._lock:
            if self._child is child:
                self._cards = cards
        return value


def _plain(removed: Removed | None) -> dict[str, list[int]] | None:
    return {group: [int(unit) for unit in units] for group, units in removed.items()} if removed else None
