"""Take it with you: what is said of a result, what a button starts, and what is left of that."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from core.plan.allocation import allocate
from core.results.exported import EXPORTED, Exported
from core.runs import launch
from core.runs.processes import started_at
from core.spec.export import ExportSpec
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from pruneviz.context import AppContext
from pruneviz.data import runs
from pruneviz.tabs import runs as runs_tab
from pruneviz.tabs import taking
from tests.pruneviz.samples import graph, make_run


@pytest.fixture
def app(tmp_path: Path, build_page: Any) -> Any:
    context = AppContext(tmp_path / "runs")
    build_page(context)
    return context


@pytest.fixture
def pruned(app: Any) -> Path:
    """A finished run with the files of its model that are read here."""
    run_dir = make_run(app.runs_dir, "pruned")
    folder = run_dir / "model"
    folder.mkdir()
    (folder / "groups.json").write_text(graph().to_json())
    (folder / "plan.json").write_text(allocate(graph(), None, sparsity=0.3, model="tiny").to_json())
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 16}))
    (folder / "modeling_pruned.py").touch()
    (folder / "model.safetensors").write_bytes(bytes(5000))
    return run_dir


def export(app: Any, pruned: Path, name: str, **status: Any) -> Path:
    """An export of that run."""
    spec = RunSpec(goal="export", model=ModelSpec(str(pruned)), export=ExportSpec(to="gguf"))
    return make_run(app.runs_dir, name, spec, **status)


def shown(app: Any, run: str) -> dict[str, Any]:
    return runs_tab._view(app, run, "runs")["taking"]


def test_every_way_has_a_verdict_a_reason_and_something_to_copy(app: Any, pruned: Path) -> None:
    view = shown(app, "pruned")
    html = str(view["ways"])
    assert view["box"].visible and view["gguf"].interactive and "4.88 KiB" in html
    for title in ("transformers", "peft", "llama.cpp", "onnxruntime", "vLLM"):
        assert f"<h4>{title}</h4>" in html
    assert "trust_remote_code=True" in html and "export" in html and "--to gguf" in html
    assert "Its attention takes" in html, "vLLM is closed to uneven heads, and says why"


def test_what_is_being_written_is_shown_and_not_started_twice(app: Any, pruned: Path) -> None:
    alive = {"pid": os.getpid(), "pid_started": started_at(os.getpid()), "heartbeat": time.time()}
    stages = {"stage": "write", "stages": ["check", "write"], "progress": 0.5}
    export(app, pruned, "e", state="running", **stages, **alive)
    view = shown(app, "pruned")
    assert "running" in str(view["ways"]) and "75 %" in str(view["ways"])
    assert not view["gguf"].interactive and view["onnx"].interactive


def test_what_was_written_can_be_found_from_both_runs(app: Any, pruned: Path) -> None:
    run_dir = export(app, pruned, "e")
    (run_dir / "gguf").mkdir()
    record = Exported("gguf", str(run_dir / "gguf"), {"a.gguf": 2048}, ["llama-cli -m a.gguf"], ["A note."])
    (run_dir / EXPORTED).write_text(json.dumps(asdict(record)))
    for run in ("pruned", "e"):
        html = str(shown(app, run)["ways"])
        assert record.folder in html and "llama-cli -m a.gguf" in html and "2 KiB" in html
    assert "1 file, 2 KiB" in runs_tab._view(app, "e", "runs")["detail"]
    (run_dir / "gguf").rmdir()
    assert "is no longer there" in str(shown(app, "pruned")["ways"])


def test_a_failed_export_says_why(app: Any, pruned: Path) -> None:
    export(app, pruned, "e", state="failed", error={"type": "x", "message": "no <room>", "fix": "do"})
    assert "no &lt;room&gt;" in str(shown(app, "pruned")["ways"])


def test_a_button_starts_a_run_of_its_own(app: Any, pruned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_spawn", lambda run_dir, log: None)
    taking.start(app, runs.find(app.runs_dir, "pruned"), ExportSpec(to="hf"))
    made = next(run for run in runs.list_runs(app.runs_dir) if run.id != "pruned")
    assert made.spec.goal == "export" and made.model == str(pruned)


def test_what_leaves_no_model_has_no_such_section_and_damage_is_said(app: Any, pruned: Path) -> None:
    make_run(app.runs_dir, "explored", RunSpec(goal="explore"))
    assert not shown(app, "explored")["box"].visible
    (pruned / "model" / "plan.json").write_text("{")
    view = shown(app, "pruned")
    assert "is damaged" in str(view["ways"]) and not view["gguf"].interactive
