"""Advice: three ways to a budget, whose figures stand in docs/measured.md, and what is not known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.cli.app import main
from core.plan.allocation import allocate
from core.plan.cost import cost
from core.results import demo_figures
from core.runs import advice
from core.runs.advice import advise
from core.spec.efforts import EFFORTS, with_effort
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from tests.graph.families import graph_of
from tests.pruneviz.samples import graph

DOCS = Path(__file__).resolve().parents[2] / "docs"


def held(spec: RunSpec) -> float:
    """Memory that a run will hold, in GiB."""
    return 1.0 if spec.recover.method == "none" else 2.0


def asking(**prune: object) -> RunSpec:
    return RunSpec(prune=PruneSpec(**prune))  # type: ignore[arg-type]


def test_the_figures_are_those_of_the_docs() -> None:
    text = (DOCS / "measured.md").read_text(encoding="utf-8")
    for figure in (demo_figures.DENSE, demo_figures.AT_40, *demo_figures.AT_20.values()):
        assert figure.written in text, figure
    assert set(demo_figures.AT_20) == set(EFFORTS)


def test_each_way_says_what_is_left_what_it_takes_and_what_is_not_known() -> None:
    ways = advise(asking(sparsity=0.4), graph(), [], held)
    assert [way.effort for way in ways] == [*EFFORTS]
    plan = allocate(graph(), None, sparsity=0.4)
    assert plan.after
    assert all(f"{plan.after.params:,} of" in way.after or "k of" in way.after for way in ways)
    none, minutes, hour = ways
    assert "37.4" in none.measured and "29.7" in minutes.measured and "26.8" in hour.measured
    assert any("96.7" in doubt for doubt in none.doubts) and none.gib == 1.0 < minutes.gib == 2.0
    assert "--recover distill" in minutes.command and "recover" not in none.command
    own = advise(replace(asking(), model=ModelSpec("another")), graph(), [], held)[0]
    assert "of another one" in own.doubts[0]


def test_ways_that_cut_alike_are_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = []

    def counted(*args: object, **asked: object) -> object:
        planned.append(asked)
        return allocate(*args, **asked)  # type: ignore[arg-type]

    monkeypatch.setattr(advice, "allocate", counted)
    ways = advise(asking(sparsity=0.3), graph(), [], held)
    assert len({way.after for way in ways}) == len(planned) == 1


def test_time_is_that_of_such_runs_here_else_by_multiply_adds() -> None:
    asked = asking(sparsity=0.2)
    (none, *_) = advise(asked, graph(), [], held)
    macs = cost(graph(), {}).macs_per_token
    assert none.seconds == pytest.approx(10 + 180 * macs / demo_figures.DEMO_MACS), "starting takes time, too"
    runs = [(with_effort(asked, "recommended").settled(), {"seconds": 42.0})]
    none, minutes, _ = advise(asked, graph(), [*runs, (with_effort(asked, "minutes").settled(), {})], held)
    assert (none.seconds, none.seconds_from) == (42.0, "as 1 such run of this model took")
    assert minutes.seconds_from != none.seconds_from


def test_what_has_to_watch_what_matrices_read_says_where_that_cannot_be() -> None:
    none, minutes, hour = advise(asking(sparsity=0.2), graph_of("mixtral"), [], held)
    assert not any(way.problem for way in (none, minutes, hour)) and "--reconstruct" not in none.command
    lent = replace(asking(sparsity=0.2), model=ModelSpec(device_map="auto"))
    for way in advise(lent, graph_of("mixtral"), [], held):
        assert "load them all into one memory" in way.problem


def test_what_cannot_be_reached_says_the_least_and_a_time_waits_for_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNEVIZ_STATE_DIR", str(tmp_path))
    assert "the least is params=" in advise(asking(target="params=1"), graph(), [], held)[0].problem
    waits = advise(asking(target="latency=-20%"), graph(), [], held)[0]
    assert "once this machine is timed" in waits.after and not waits.problem


def test_the_command_prints_them(
    tiny_llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["advise", str(tiny_llama_folder), "--runs-dir", str(tmp_path)]
    assert main([*arguments, "--sparsity", "0.3", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [way["effort"] for way in said["ways"]] == [*EFFORTS] and said["ways"][0]["command"]
    assert main([*arguments, "--target", "params=-30%"]) == 0
    assert "not known" in capsys.readouterr().out
    assert main([*arguments, "--target", "params=-30%", "--sparsity", "0.3"]) == 2
    assert "both say how much goes" in capsys.readouterr().err
    assert main([*arguments, "--target", "params=1"]) == 2
    assert "the least is params=" in capsys.readouterr().err
