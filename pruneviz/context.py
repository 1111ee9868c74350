"""What every tab gets: where the runs are, which model, the engine, and the state kept in the URL."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from core.spec import ModelSpec

if TYPE_CHECKING:
    from core.engine import Engine

#: Tabs in order: id -> title. The ids are what `?tab=` holds.
TABS = {
    "model": "Model",
    "structure": "Structure",
    "heads": "Heads",
    "sensitivity": "Sensitivity",
    "runs": "Runs",
    "compare": "Compare",
}
DEFAULT_TAU = "0.2"


@dataclass
class UrlState:
    """Hidden text boxes that mirror the address: `?tab=&model=&run=&layer=&tau=`.

    Read one as an input, write one as an output, listen to its `.change`; the address follows by itself.
    All values are strings and may be empty. They are filled once the page has loaded.
    """

    tab: gr.Textbox
    model: gr.Textbox
    run: gr.Textbox
    layer: gr.Textbox
    tau: gr.Textbox

    def all(self) -> list[gr.Textbox]:
        """The boxes, in the order of the address."""
        return [self.tab, self.model, self.run, self.layer, self.tau]


def build_url_state(model: str) -> UrlState:
    """Create the hidden boxes; call inside the page, outside of any tab."""

    def box(name: str, value: str) -> gr.Textbox:
        return gr.Textbox(value, label=name, visible="hidden", elem_id=f"url-{name}")

    return UrlState(box("tab", ""), box("model", model), box("run", ""), box("layer", ""), box("tau", DEFAULT_TAU))


@dataclass
class AppContext:
    """Shared by all tabs.

    Attributes:
        runs_dir: where run directories are.
        model: the source given on the command line; the one in use is the value of `url.model`.
        device, dtype: as given on the command line.
        url: the state in the address; set by `ui.build` before any tab is built.
    """

    runs_dir: Path
    model: str = "demo"
    device: str = "auto"
    dtype: str = "auto"
    url: UrlState = field(init=False)
    _engine: Engine | None = field(default=None, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def engine(self) -> Engine:
        """The process that holds models; started on first use."""
        from core.engine import Engine

        with self._lock:
            if self._engine is None:
                self._engine = Engine(self.device, self.dtype)
            return self._engine

    def model_spec(self, source: str) -> ModelSpec:
        """`source` with the device and precision of the command line. Raises SpecError."""
        return ModelSpec(source=source, device=self.device, dtype=self.dtype)

    def close(self) -> None:
        """Give the engine back."""
        with self._lock:
            if self._engine is not None:
                self._engine.close()
                self._engine = None
