"""Runs that are to meet a time: this machine is timed once, the plan meets it, the result is timed again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import NotPrunableError, SpecError
from core.evaluate import latency as timing
from core.runs.artifacts import LOG, read_metrics, read_plan
from core.runs.origin import state_dir
from core.runs.timings import LATENCY, read_reached
from core.spec.run import RunSpec
from core.stages import latency
from core.stages.check import check
from tests.evaluate.test_latency import by_size
from tests.stages.steps import done, staged


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """What is timed, by names; on a machine whose times are sizes."""
    calls: list[str] = []

    def of_size(models: dict[str, Any], *args: Any, **named: Any) -> dict[str, tuple[float, ...]]:
        calls.append(" ".join(models))
        return by_size(models, *args, **named)

    monkeypatch.setenv("PRUNEVIZ_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(timing, "timed", of_size)
    monkeypatch.setattr(latency, "timed", of_size)
    yield calls


def asking(spec: RunSpec, target: str, **more: Any) -> RunSpec:
    return replace(spec, prune=replace(spec.prune, target=target, **more))


def test_a_time_is_met_predicted_and_measured_and_the_machine_timed_once(
    tmp_path: Path, spec: RunSpec, timed: list[str]
) -> None:
    run_dir = done(tmp_path / "runs", asking(spec, "latency=-25%@1x8"))
    stages = staged(run_dir)
    assert stages.index("time") == stages.index("graph") + 1
    assert stages.index("retime") == stages.index("surgery") + 1
    reached, metrics = read_reached(run_dir), read_metrics(run_dir)
    assert reached and reached.predicted <= reached.target == 0.75 * reached.timings.dense_ms
    assert reached.measured == pytest.approx(reached.predicted, rel=0.1)
    assert metrics["latency_predicted_ms"] == reached.predicted
    assert metrics["latency_reached_ms"] == reached.measured
    (budget,) = metrics["budgets"]
    assert (budget["asked"], budget["left"]) == ("latency=-25%@1x8", reached.measured)
    assert budget["words"].startswith("latency=-2") and budget["words"].endswith("-25% asked for")
    log = (run_dir / LOG).read_text()
    assert "The plan leaves latency=-2" in log and "as predicted; it removes" in log
    assert "-25% asked for, which is" in log
    first = timed.count("dense cut")
    again = done(tmp_path / "runs", asking(spec, "latency=-25%@1x8", drop="ffn_block=1"))
    assert timed.count("dense cut") == first > 5, "kept times are taken"
    assert any("ffn_block" in group for group in read_plan(again).removed)
    reached = read_reached(again)
    assert reached and reached.measured == pytest.approx(reached.predicted, rel=0.1)


def test_times_of_another_machine_are_taken_anew(
    tmp_path: Path, spec: RunSpec, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done(tmp_path / "runs", asking(spec, "latency=-25%@1x8"))
    first, real = timed.count("dense cut"), timing.machine_of

    def other(loaded: Any) -> Any:
        return replace(real(loaded), threads=77)

    for room in (timing, latency):
        monkeypatch.setattr(room, "machine_of", other)
    run_dir = done(tmp_path / "runs", asking(spec, "latency=-25%@1x8"))
    assert timed.count("dense cut") == 2 * first
    assert "this is" in (text := (run_dir / LOG).read_text()) and "77 threads" in text
    assert len([*(state_dir() / "latency").iterdir()]) == 2


def test_what_cannot_be_met_stops_before_anything_is_measured(
    tmp_path: Path, spec: RunSpec, timed: list[str]
) -> None:
    with pytest.raises(NotPrunableError, match="out of reach: the least is latency="):
        done(tmp_path / "runs", asking(spec, "latency=-99%@1x8"))
    (run_dir,) = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    assert staged(run_dir)[-1] == "time" and not (run_dir / LATENCY).exists()
    with pytest.raises(NotPrunableError, match="out of reach"):
        check(asking(spec, "latency=-99%@1x8"))  # the times are kept: it is told at once
    with pytest.raises(SpecError, match="target latency=-9%@1x9999 reads and writes is 9999"):
        check(asking(spec, "latency=-9%@1x9999"))
    check(asking(spec, "latency=-99%@1x16"))  # nobody knows yet


def test_times_of_a_busy_machine_serve_one_run_and_are_not_kept(
    tmp_path: Path, spec: RunSpec, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(models: dict[str, Any], *args: Any, **named: Any) -> dict[str, tuple[float, ...]]:
        return {name: (1 * ms, 2 * ms) for name, (ms,) in by_size(models, *args, **named).items()}

    monkeypatch.setattr(timing, "timed", busy)
    run_dir = done(tmp_path / "runs", asking(spec, "latency=-25%@1x8"))
    assert "the machine is busy" in (run_dir / LOG).read_text()
    assert not (state_dir() / "latency").exists() and read_reached(run_dir)
