"""The dense model trained on the same text beside the pruned one: measured, shown, stopped and resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.cli.terminal import perplexity_lines
from core.errors import ModelError, StopRequested
from core.report.numbers import numbers
from core.report.run import Run
from core.results.perplexity import read_perplexities
from core.runs import launch
from core.runs.artifacts import STOP, read_spec
from core.runs.events import Event
from core.runs.status import Status, write_status
from core.spec.model import ModelSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from core.stages.check import check
from core.stages.worker import execute
from pruneviz.data.contenders import line_up
from pruneviz.data.runs import list_runs
from pruneviz.figures.compare import compare_info, entries_of
from pruneviz.figures.run_detail import run_facts
from tests.stages.test_distill import DISTIL
from tests.stages.test_recover import done, metrics, words

__all__ = ["words"]


@pytest.fixture(scope="module")
def asked(spec: RunSpec, words: list[Path]) -> RunSpec:
    """Half a word's training: the text that measures is by the same hands, so it helps the dense model."""
    learned = replace(DISTIL, data=str(words[0]), control=True)
    measured = replace(spec.evaluate, text=str(words[1]), also=())
    calibrated = replace(spec.calibration, name=str(words[0]))
    return replace(spec, recover=learned, evaluate=measured, calibration=calibrated)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, asked: RunSpec) -> Path:
    return done(tmp_path_factory.mktemp("runs"), asked)


def test_the_control_is_lora_on_the_next_token_at_the_same_steps() -> None:
    ours = replace(DISTIL, targets="weights", next_token=0.5, control=True).of_control()
    assert (ours.method, ours.targets, ours.steps) == ("lora", "all", DISTIL.steps)
    assert (ours.batch, ours.length, ours.learning_rate) == (DISTIL.batch, DISTIL.length, 5e-3)
    assert not ours.controls and not RecoverSpec(control=True).controls


def test_the_dense_model_learns_the_same_text(finished: Path, asked: RunSpec, tmp_path: Path) -> None:
    facts = metrics(finished)
    assert facts["ppl_control"] < facts["ppl_before"] and facts["kl_control"] > 0
    assert facts["perplexities"][0]["ppl_control"] == facts["ppl_control"]
    assert read_perplexities(finished)["control"][0].ppl == facts["ppl_control"]
    alone = metrics(done(tmp_path, replace(asked, recover=replace(asked.recover, control=False))))
    beside = {name for name in facts if name.endswith("_control")}
    assert set(read_spec(finished).extra["fitted"]) == {"recover", "control"}  # into memory, each by itself
    assert beside == {"ppl_control", "ppl_stderr_control", "kl_control", "kl_stderr_control"}
    rest = {name: value for name, value in facts.items() if name not in beside | {"perplexities"}}
    assert rest == {name: value for name, value in alone.items() if name != "perplexities"}


def test_it_stands_beside_the_others_everywhere(finished: Path) -> None:
    """In the table of the command line, the report, Runs and Compare."""
    facts = metrics(finished)
    assert "dense, trained alike" in "\n".join(perplexity_lines(facts))
    table = numbers(Run(finished))
    assert table is not None and table.head[2] == "dense, trained alike"
    assert str(table.rows[0][2]).startswith(f"{facts['ppl_control']:,.2f}")
    (record,) = list_runs(finished.parent)
    told = dict(run_facts(record, 0.0))
    assert "nats away" in told["The dense model, trained on the same text"]
    lineup = line_up([record], ["dense", record.id], "")
    info = compare_info(entries_of(lineup, [record]))
    titles = [title for title, _ in info.columns]
    assert titles[:3] == ["Dense model", "Before recovery", "Dense model, trained on the same text"]
    by_name = {row.name: row.cells[2].text for row in info.rows}
    assert by_name["params"] == info.rows[[row.name for row in info.rows].index("params")].cells[0].text
    assert by_name["ppl"] != by_name["kl"] != "–"
    assert entries_of(lineup, [record])[2].made_on == "", "no text chose what goes of a dense model"


@pytest.mark.parametrize("goal", ["prune", "recover"])
def test_stopped_while_it_is_trained_and_resumed_gives_the_same(
    tmp_path: Path, asked: RunSpec, finished: Path, goal: str
) -> None:
    """Of a run that recovers another it gives what that would have had."""
    spec = asked
    if goal == "recover":
        cut = done(tmp_path, replace(asked, recover=RecoverSpec()))
        spec = replace(asked, goal="recover", model=ModelSpec(str(cut), "cpu"))
    run_dir = launch.create(tmp_path, spec, mine=True)

    def stop_there(event: Event) -> None:
        if event.type == "metric" and (event.data["name"], event.data["step"]) == ("control.loss", 3):
            (run_dir / STOP).touch()

    with pytest.raises(StopRequested):
        execute(run_dir, stop_there)
    write_status(run_dir, Status(created=1.0))
    execute(run_dir)
    whole, resumed = metrics(finished), metrics(run_dir)
    assert resumed["ppl_control"] == pytest.approx(whole["ppl_control"], rel=1e-6)
    assert resumed["ppl_after"] == pytest.approx(whole["ppl_after"], rel=1e-4)
    assert not (run_dir / "checkpoint" / "control").exists()


def test_a_dense_model_that_nobody_knows_cannot_be_trained(
    tmp_path: Path, asked: RunSpec, finished: Path
) -> None:
    (finished / "model").rename(tmp_path / "alone")
    try:
        lost = replace(asked, goal="recover", model=ModelSpec(str(tmp_path / "alone"), "cpu"))
        lost = replace(lost, recover=replace(lost.recover, teacher=asked.model.source))
        with pytest.raises(ModelError, match="leave out --control"):
            check(lost)
        check(replace(lost, recover=replace(lost.recover, control=False)))
    finally:
        (tmp_path / "alone").rename(finished / "model")
