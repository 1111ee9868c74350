"""What ten pages ask for is worked out once, and anew as soon as a file that it was made of is another."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.plan.latency import Machine, Timings, fingerprint
from core.results.scores import write_scores
from core.results.sensitivity import Sensitivity, write_sensitivity
from core.runs.timings import keep_timings
from core.spec.run import RunSpec
from pruneviz.context import AppContext
from pruneviz.tabs import advice, deciding
from tests.pruneviz.samples import MEASURED, graph, make_run


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppContext:
    """A dashboard with one analysis, and times of its own machine."""
    monkeypatch.setattr("core.runs.timings.state_dir", lambda: tmp_path / "state")
    run = make_run(tmp_path / "runs", "explored", RunSpec(goal="explore"), with_graph=True)
    scan(run, 8.0)
    score(run, 0)
    return AppContext(tmp_path / "runs")


def scan(run: Path, worse: float) -> None:
    points = [
        {"layer": layer, "kind": kind, "ratio": ratio, "ppl": 20 + worse * ratio * (1 + layer)}
        for layer in (0, 1)
        for kind in ("attention", "ffn")
        for ratio in (0.25, 0.5)
    ]
    write_sensitivity(run, Sensitivity(20.0, "a text", 8, 64, "l2", points))


def score(run: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    write_scores(run, {"l2": {g.id: rng.random(g.units, np.float32) for g in graph().groups}})


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[None]:
    """Something for each time that this function of a module is called."""
    calls, real = list[None](), getattr(module, name)

    def counting(*args: Any, **named: Any) -> Any:
        calls.append(None)
        return real(*args, **named)

    monkeypatch.setattr(module, name, counting)
    return calls


def timed(at: float) -> None:
    saved = {"query_head": ((0.5, 1.0),), "ffn_channel": ((0.5, 2.0),)}
    machine = Machine(platform.node(), "a processor", 2, "float32", "sdpa", "2")
    keep_timings(Timings(fingerprint(graph()), "1x128", 1, machine, at, 9.0, 0.1, saved, {}))


def test_a_budget_is_worked_out_once(app: AppContext, monkeypatch: pytest.MonkeyPatch) -> None:
    made = counted(monkeypatch, deciding, "to_browser")
    first, run = deciding._shown(app, "demo")[0], app.runs_dir / "explored"
    assert deciding._shown(app, "demo")[0] == first and len(made) == 1
    changes: list[Callable[[], None]] = [lambda: scan(run, 9.0), lambda: score(run, 1), lambda: timed(1.0)]
    for number, change in enumerate(changes):
        change()
        again = deciding._shown(app, "demo")[0]
        assert again != first and len(made) == number + 2
        first = again
    (run / "scores.safetensors").write_bytes(b"broken")
    assert json.loads(deciding._shown(app, "demo")[0]) == {} and len(made) == len(changes) + 1


def test_advice_is_worked_out_once(app: AppContext, monkeypatch: pytest.MonkeyPatch) -> None:
    made = counted(monkeypatch, advice, "advise")
    first = str(advice._shown(app, "demo", "20 %")[0])
    assert str(advice._shown(app, "demo", "20%")[0]) == first and len(made) == 1
    assert str(advice._shown(app, "demo", "30 %")[0]) != first and len(made) == 2
    make_run(app.runs_dir, "pruned", RunSpec().settled(), metrics={**MEASURED, "seconds": 4321.0})
    assert "as 1 such run" in str(advice._shown(app, "demo", "20 %")[0]) and len(made) == 3
