"""What every tab gets: where the runs are, which model, the engine, and the state kept in the URL.

There is no `gr.State` anywhere in the dashboard. It would be lost on reload, and it makes Gradio hold a
connection open per page, so that the sixth page of one browser hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.spec.cluster import ClusterSpec
from core.spec.explore import TAU
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from pruneviz.data import runs
from pruneviz.data.cards import Card, card_from_engine, read_card, weightless
from pruneviz.data.examples import Examples, read_examples
from pruneviz.data.runs import RunRecord

if TYPE_CHECKING:
    from core.engine.client import Engine

#: Tabs in order: id -> title. The ids are what `?tab=` holds.
TABS = {
    "model": "Model",
    "structure": "Structure",
    "heads": "Heads",
    "scores": "Scores",
    "sensitivity": "Sensitivity",
    "sweep": "Sweep",
    "runs": "Runs",
    "widths": "Widths",
    "compare": "Compare",
}
DEFAULT_TAU = str(TAU)
#: What the address holds, in order; `unit` is the Structure tab's, `criterion`, `versus` and `kind` are the
#: Scores tab's, `models` is the Compare tab's.
ADDRESS = ("tab", "model", "run", "layer", "unit", "tau", "units", "criterion", "versus", "kind", "models")


@dataclass
class UrlState:
    """Hidden text boxes that mirror the address, one per name in `ADDRESS`.

    Read one as an input, write one as an output, listen to its `.change`; the address follows by itself.
    All values are strings and may be empty. They are filled once the page has loaded.
    """

    tab: gr.Textbox
    model: gr.Textbox
    run: gr.Textbox
    layer: gr.Textbox
    unit: gr.Textbox
    tau: gr.Textbox
    units: gr.Textbox
    criterion: gr.Textbox
    versus: gr.Textbox
    kind: gr.Textbox
    models: gr.Textbox

    def all(self) -> list[gr.Textbox]:
        """The boxes, in the order of the address."""
        return [getattr(self, name) for name in ADDRESS]


def memory(elem_id: str, value: str = "") -> gr.Textbox:
    """A box that nobody sees, in which the page keeps something.

    Gradio forgets now and then that a box is hidden when what is around it is shown; a style sheet does not.
    """
    return gr.Textbox(value, label=elem_id, visible="hidden", elem_id=elem_id, elem_classes="pv-memory")


def build_url_state(model: str) -> UrlState:
    """Create the hidden boxes; call inside the page, outside of any tab."""
    first = {"model": model, "tau": DEFAULT_TAU}
    return UrlState(**{name: memory(f"url-{name}", first.get(name, "")) for name in ADDRESS})


@dataclass(frozen=True)
class Asking:
    """An event that opens the New run form with a run that it asks for.

    Attributes:
        event: registers what follows it; spec: (model, the event's data) -> that run, may raise PruneError.
        state: where it is said why there is none.
    """

    event: Callable[..., Any]
    spec: Callable[[str, gr.EventData], RunSpec]
    state: gr.HTML


@dataclass
class AppContext:
    """Shared by all tabs.

    Attributes:
        runs_dir: where run directories are.
        model: the source given on the command line; the one in use is the value of `url.model`.
        device, dtype, load_limit_s, allow_remote_code, cluster, device_map, max_memory: as given on the
            command line.
        examples_dir: runs that come with the program and are only read; None for none.
        url: the state in the address; set by `ui.build` before any tab is built.
        answers_stopped: how often Stop was pressed for the engine.
        cards: source -> what is known of a model, as far as somebody asked.
        handing_over: events after which the New run form opens with the units in the address.
        asking: what else opens it, filled in.
        tabs: id -> gr.Tab; `tabs[id].select` also fires when the tab opens with the page.
    """

    runs_dir: Path
    model: str = "demo"
    device: str = "auto"
    dtype: str = "auto"
    load_limit_s: float = 600.0
    allow_remote_code: bool = False
    examples_dir: Path | None = None
    cluster: ClusterSpec = field(default_factory=ClusterSpec)
    device_map: str = "none"
    max_memory: str = ""
    url: UrlState = field(init=False)
    cards: dict[str, Card] = field(default_factory=dict, init=False)
    handing_over: list[Callable[..., Any]] = field(default_factory=list, init=False)
    asking: list[Asking] = field(default_factory=list, init=False)
    tabs: dict[str, gr.Tab] = field(default_factory=dict, init=False)
    answers_stopped: int = field(default=0, init=False)
    _engine: Engine | None = field(default=None, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def examples(self) -> Examples:
        """The runs that come with the program, and what is left out of them."""
        return read_examples(self.examples_dir)

    def records(self, model: str, *chosen: str) -> list[RunRecord]:
        """All runs of the folder, newest first; then the examples, if they are of this model.

        Args:
            chosen: runs in the address: if one is an example, all are there whatever the model.
        """
        own, examples = runs.list_runs(self.runs_dir), self.examples.records
        ids, key = {record.id for record in own}, runs.source_key(model)
        wanted = any(record.id in chosen or runs.source_key(record.model) == key for record in examples)
        return [*own, *(record for record in examples if wanted and record.id not in ids)]

    def latest(self, model: str, artifact: str) -> Path | None:
        """The newest run of this model that holds `artifact`, else an example that does."""
        return runs.latest(self.records(model), model, artifact)

    @property
    def engine(self) -> Engine:
        """The process that holds models; started on first use."""
        from core.engine.client import Engine

        with self._lock:
            if self._engine is None:
                self._engine = Engine(
                    self.device, self.dtype, self.load_limit_s, self.device_map, self.max_memory
                )
            return self._engine

    def known_card(self, source: str) -> Card | None:
        """What is known of a model without asking anybody: its files, and whether the engine holds it.

        Raises:
            ModelError: its files are damaged.
        """
        held = self._engine.state()["models"].values() if self._engine else ()
        for found in held:
            if found["source"] == source:
                return card_from_engine(source, found)
        card = self.cards.get(source)
        if card is None or card.bare != weightless(source):  # weights came since, or went
            card = read_card(source)
        return replace(card, device="", dtype="", memory_gib=None) if card else None

    def card(self, source: str) -> Card:
        """What the engine says of a model, weights unread. Raises PruneError."""
        self.cards[source] = card_from_engine(source, self.engine.card(source))
        return self.cards[source]

    def load(self, source: str) -> Card:
        """Have the engine read the weights. Raises PruneError."""
        self.cards[source] = card_from_engine(source, self.engine.load(source))
        return self.cards[source]

    def stop_answers(self) -> None:
        """Have the engine end the answer it is writing, or the model it is reading."""
        self.answers_stopped += 1
        if self._engine is not None:
            self._engine.stop()

    def model_spec(self, source: str) -> ModelSpec:
        """`source` with device, precision and map of the command line. Raises SpecError."""
        resting = {"device_map": self.device_map, "max_memory": self.max_memory}
        return ModelSpec(source, self.device, self.dtype, self.allow_remote_code, **resting)

    def usual(self, model: str) -> RunSpec:
        """A run of this model where and how the command line says. Raises SpecError."""
        return RunSpec(model=self.model_spec(model), cluster=self.cluster)

    def close(self) -> None:
        """Give the engine back."""
        with self._lock:
            if self._engine is not None:
                self._engine.close()
                self._engine = None
