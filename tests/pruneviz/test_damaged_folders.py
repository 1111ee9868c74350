"""One damaged run beside a whole one, 150 times: everything that reads runs answers, and a launch works."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.blocks import Block
from hypothesis import HealthCheck, Phase, given, settings
from typer.testing import CliRunner

from core.cli.runs import app as command
from core.errors import PruneError
from core.runs import launch, records, watch
from core.spec.run import RunSpec
from pruneviz import ui
from pruneviz.context import ADDRESS, TABS, AppContext
from pruneviz.data import runs
from pruneviz.present import answer
from tests.pruneviz.damages import WHOLE, Folder, folders, whole_run

#: What the page does by itself: when a tab is opened, when the address changes, when a clock ticks.
BY_ITSELF = {"select", "change", "tick"}
EXAMPLES = 150


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[AppContext, list[Any]]:
    """The page around an empty folder, and all that it does by itself."""
    app = AppContext(tmp_path_factory.mktemp("runs"))

    async def inside() -> gr.Blocks:
        return ui.build(app)

    built = asyncio.run(inside())
    return app, [event for event in built.fns.values() if _by_itself(event)]


@pytest.fixture(scope="module", autouse=True)
def drawn_once(page: tuple[AppContext, list[Any]]) -> Iterator[None]:
    """Every chart is drawn once from the same numbers: those of the whole run come again in every folder."""
    once: dict[Any, Any] = {}

    def remembering(draw: Callable[..., Any]) -> Callable[..., Any]:
        def drawn(*numbers: Any, **named: Any) -> Any:
            key = draw, pickle.dumps((numbers, named))
            once[key] = once[key] if key in once else draw(*numbers, **named)
            return once[key]

        return drawn

    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            for called, draw in list(vars(module).items()) if name.startswith("pruneviz.tabs.") else ():
                if called.endswith("_figure") and inspect.isfunction(draw):
                    patch.setattr(module, called, remembering(draw))
        yield


def _by_itself(event: Any) -> bool:
    if event.fn is None or not BY_ITSELF & {name for _, name in event.targets}:
        return False
    asked = inspect.signature(event.fn).parameters.values()
    return not any("EventData" in str(parameter.annotation) for parameter in asked)


def seen(app: AppContext, events: list[Any], name: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Who reads runs -> how."""
    everywhere = ["--runs-dir", str(app.runs_dir)]
    yield "runs list", lambda: invoked(["list", *everywhere])
    yield "runs list --json", lambda: json.loads(invoked(["list", "--json", *everywhere]))
    yield "runs show", lambda: invoked(["show", *everywhere, "--", name])
    yield (
        "the record",
        lambda: [json.dumps(records.full_record(path)) for path in watch.list_runs(app.runs_dir)],
    )
    for chosen in ("", name, f"{WHOLE},{name}"):
        yield f"/present?run={chosen}", lambda chosen=chosen: answer(app, chosen).body.decode()
    address = {"model": "demo", "run": name, "tau": "0.2", "models": f"dense,{name}", "layer": "0"}
    boxes = {f"url-{part}": part for part in ADDRESS}
    called = []
    for event in events:
        tab = next((tab for tab in TABS if tab in event.fn.__module__), "runs")
        values = [
            {**address, "tab": tab}.get(boxes[box.elem_id], "") if box.elem_id in boxes else box.value
            for box in event.inputs
        ]
        if (event.fn, values) in called:  # once for all that sets it going
            continue
        called.append((event.fn, values))
        yield f"{event.fn.__module__} {event.targets}", lambda e=event, v=values: shown(e.fn(*v))


def as_sent(name: str) -> str:
    """A folder's name as an address carries it: what is no Unicode is replaced on the way."""
    return os.fsencode(name).decode(errors="replace")


def invoked(words: list[str]) -> str:
    """What a command prints; our own errors are answers."""
    result = CliRunner().invoke(command, words)
    if result.exception and not isinstance(result.exception, (SystemExit, PruneError)):
        raise result.exception
    return result.output


def shown(update: Any) -> None:
    """Send it to a browser, as far as that may fail: texts must be Unicode."""
    if isinstance(update, Block):
        update = update.constructor_args
    if isinstance(update, str):
        update.encode()
    for part in (
        update.values() if isinstance(update, dict) else update if isinstance(update, (list, tuple)) else ()
    ):
        shown(part)


@settings(
    max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(folders)
def test_a_damaged_folder_harms_nobody_else(page: tuple[AppContext, list[Any]], folder: Folder) -> None:
    app, events = page
    shutil.rmtree(app.runs_dir)
    runs._as_it_was.cache_clear()
    whole_run(app.runs_dir, WHOLE, "prune")
    folder.make(app.runs_dir)
    assert WHOLE in [record.id for record in runs.list_runs(app.runs_dir) if record.state == "finished"]
    wrong = {}
    for who, look in seen(app, events, as_sent(folder.name)):
        try:
            look()
        except Exception as error:  # every one of them is a traceback for somebody
            wrong[who] = f"{type(error).__name__}: {error}"
    assert not wrong
    assert_a_launch_works(app.runs_dir)


def assert_a_launch_works(runs_dir: Path) -> None:
    launch.WORKER, before = ("true",), launch.WORKER
    try:
        run_dir = launch.start(runs_dir, RunSpec(goal="evaluate"))
        assert watch.refresh(run_dir).state in ("queued", "starting", "crashed")
    finally:
        launch.WORKER = before
