"""The inside of the engine's process: models in memory, and the calls on them.

`core.engine.client` can call every public method of `Host` by name. Arguments and results are plain
values, so that the caller's process needs no torch.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from core.engine import model_card
from core.engine.attention import MOST_TOKENS, attention_maps
from core.errors import LaunchError, ModelError, PruneError, StopRequested
from core.evaluate.generation import stream
from core.evaluate.perplexity import perplexity
from core.graph.records import Graph
from core.models.load import Loaded, load
from core.models.sources import resolve
from core.models.texts import evaluation_text
from core.models.windows import consecutive_windows
from core.results.quantities import LLM_INT8
from core.surgery.int8 import int8_kind, quantize
from core.surgery.masks import masked

Removed = Mapping[str, Sequence[int]]


@dataclass
class Held:
    """A model in memory, with an adapter merged if one is named, in 8 bits if `int8`.

    Its graph is traced when a mask needs it.
    """

    source: str
    int8: bool
    adapter: str
    loaded: Loaded
    card: dict[str, Any]
    graph: Graph | None = None


class Host:
    """One dense and at most one pruned model.

    Attributes:
        channel: to the caller's process. It sends out (call, event), and receives the number of a call
            to stop, or None to end.
        where: device, dtype, device_map and max_memory of every model, as `core.models.load.load` takes them.
    """

    def __init__(self, channel: Connection, where: Mapping[str, Any]) -> None:
        self.channel, self.where = channel, where
        self._held: dict[str, Held] = {}  # "dense" or "pruned" -> model
        self._stopped: set[int] = set()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Note which calls are to stop; end when the caller's process does, however it ends."""
        with suppress(EOFError, OSError):  # the other side is gone, killed perhaps
            while (call := self.channel.recv()) is not None:
                self._stopped.add(call)
        os._exit(0)

    def cards(self) -> dict[str, dict[str, Any]]:
        """The models in memory: "dense" or "pruned" -> card."""
        return {slot: held.card for slot, held in self._held.items()}

    def load(self, call: int, source: str) -> dict[str, Any]:
        """Load a model unless it is in memory, and return its card."""
        return self._model(call, source).card

    def card(self, call: int, source: str) -> dict[str, Any]:
        """The card of a model, without loading its weights."""
        held = self._find(source)
        if held is not None:
            return held.card
        with self._reading(call, source):
            return model_card.describe_config(source)

    def release(self, call: int) -> None:
        """Free all models."""
        for slot in list(self._held):
            self._drop(slot)

    def generate(
        self,
        call: int,
        source: str,
        prompt: str,
        removed: Removed | None,
        int8: bool,
        adapter: str,
        **settings: Any,
    ) -> None:
        """Send {"piece"} for every token, and at last {"done", …}; see `Engine.generate`."""
        held = self._model(call, source, int8, adapter)
        model, tokenizer = held.loaded.model, held.loaded.tokenizer
        with _masked(held, removed):
            began, tokens = time.perf_counter(), -1  # the last piece is what was held back, not a token
            for piece in stream(model, tokenizer, prompt, stop=lambda: call in self._stopped, **settings):
                tokens += 1
                if piece:
                    self.channel.send((call, {"piece": piece}))
            seconds = time.perf_counter() - began
        done = {"done": True, "tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds}
        self.channel.send((call, {**done, "stopped": call in self._stopped}))

    def perplexity(
        self, call: int, source: str, text: str, window: int, tokens: int, removed: Removed | None
    ) -> dict[str, Any]:
        """See `core.engine.client.Engine.perplexity`."""
        held, scored = self._model(call, source), evaluation_text(text, tokens=tokens)
        windows = consecutive_windows(held.loaded.tokenizer, scored, window=window, tokens=tokens)

        def check(done: int, total: int) -> None:
            if call in self._stopped:
                raise StopRequested(f"Stopped after {done} of {total} windows.")

        with _masked(held, removed):
            measured = perplexity(held.loaded.model, windows, text=scored.name, on_progress=check)
        return {**asdict(measured), "stderr": measured.stderr}

    def attention(
        self, call: int, source: str, text: str, layer: int, heads: Sequence[int]
    ) -> dict[str, Any]:
        """{"tokens", "maps", "cut"}; see `core.engine.client.Engine.attention`."""
        held = self._model(call, source)
        ids = held.loaded.tokenizer(text, return_tensors="pt").input_ids[0]
        shown, graph = ids[:MOST_TOKENS], _graph(held)
        if call in self._stopped:
            raise StopRequested("Stopped before the text was read.")
        maps = attention_maps(held.loaded.model, graph, shown, layer, heads)
        tokens = [held.loaded.tokenizer.decode([int(token)]) for token in shown]
        return {"tokens": tokens, "maps": maps.tolist(), "cut": len(ids) - len(shown)}

    def _find(self, source: str, int8: bool = False, adapter: str = "") -> Held | None:
        wanted, held = (source, int8, adapter), self._held.values()
        return next((each for each in held if (each.source, each.int8, each.adapter) == wanted), None)

    def _model(self, call: int, source: str, int8: bool = False, adapter: str = "") -> Held:
        """The model, loaded unless it is in memory; the other dense or pruned model is freed first."""
        held = self._find(source, int8, adapter)
        if held is not None:
            return held
        if int8 and self.where.get("device_map", "none") != "none":
            raise ModelError("8 bits take the model twice; for them, start the page without --device-map.")
        with self._reading(call, source):
            slot = "pruned" if resolve(source).kind == "pruned" else "dense"
            self._drop(slot)
            loaded = load(source, adapter=adapter, **self.where)
            if int8:
                loaded = replace(loaded, model=quantize(loaded.model))
        card = model_card.describe(loaded, source) | ({"dtype": _int8_name(loaded)} if int8 else {})
        self._held[slot] = Held(source, int8, adapter, loaded, card)
        return self._held[slot]

    @contextmanager
    def _reading(self, call: int, source: str) -> Iterator[None]:
        """Tell the caller's process, which limits it, for how long a model is being read."""
        if call in self._stopped:
            raise StopRequested(f"Stopped before {source} was read.")
        self.channel.send((call, {"reading": source}))
        try:
            yield
        finally:
            self.channel.send((call, {"reading": ""}))

    def _drop(self, slot: str) -> None:
        self._held.pop(slot, None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _int8_name(loaded: Loaded) -> str:
    kind, _ = int8_kind(loaded.device.type)
    return "LLM.int8()" if kind == LLM_INT8 else "int8, weights only"


def _masked(held: Held, removed: Removed | None) -> AbstractContextManager[None]:
    if not removed:
        return nullcontext()
    units = {group: tuple(sorted(int(unit) for unit in gone)) for group, gone in removed.items()}
    return masked(held.loaded.model, _graph(held), units)


def _graph(held: Held) -> Graph:
    if held.graph is None:
        from core.models.again import groups_of  # slow to import, and most calls need no groups

        held.graph = groups_of(held.loaded)
    return held.graph


_host: Host | None = None


def start(channel: Connection, where: Mapping[str, str]) -> None:
    """Run once when the process starts."""
    global _host
    transformers_logging.disable_progress_bar()
    _host = Host(channel, where)
    channel.send((0, {"reading": ""}))  # all that it needs itself is read


def answer(name: str, call: int, arguments: dict[str, Any]) -> tuple[Any, dict[str, dict[str, Any]]]:
    """Call a method of the host; return its result and the cards of the models in memory.

    Raises:
        PruneError: of any kind. Other errors become LaunchError, because their classes may live in
            torch, which the caller's process must not import.
    """
    assert _host is not None, "start() runs first"
    try:
        return getattr(_host, name)(call, **arguments), _host.cards()
    except PruneError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        _host.release(call)
        raise LaunchError(
            "The engine ran out of memory and gave its models back; take a smaller model or another device."
        ) from error
    except Exception as error:
        raise LaunchError(f"The engine failed: {type(error).__name__}: {error}") from error
