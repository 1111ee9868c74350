"""Training text that the dense model writes: its share, by the seed, kept and gone on with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import ArtifactError, SpecError, StopRequested
from core.models.load import load, load_tokenizer
from core.models.self_text import write as write_windows
from core.recover import written
from core.recover.examples import training_data
from core.runs import launch, watch
from core.runs.artifacts import STOP
from core.runs.events import Event
from core.runs.status import Status, write_status
from core.spec.model import ModelSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from core.stages.worker import execute
from tests.stages.test_distill import DISTIL
from tests.stages.test_recover import done, events, metrics, words

__all__ = ["words"]


@pytest.fixture(scope="module")
def asked(spec: RunSpec, words: list[Path]) -> RunSpec:
    """Half of 64 sequences is written: 32 in two parts."""
    learned = replace(DISTIL, data=str(words[0]), steps=16, eval_every=8, self_written=0.5)
    return replace(spec, recover=learned, evaluate=replace(spec.evaluate, text=str(words[1]), also=()))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, asked: RunSpec) -> Path:
    return done(tmp_path_factory.mktemp("runs"), asked)


def test_half_of_what_is_trained_on_is_what_the_model_says(tmp_path: Path, asked: RunSpec) -> None:
    """The other half is of the data, and what is kept apart is the data's."""
    run_dir = launch.create(tmp_path, asked, mine=True)
    data = training_data(load_tokenizer(asked.model.source, False), asked.recover, 0, None)[1]
    with pytest.raises(ArtifactError):
        written.mixed(asked, run_dir, data)
    parts = written.missing(asked, run_dir)
    written.write(asked, run_dir, load(**vars(asked.model)).model, parts)
    assert parts == [0, 1] and written.missing(asked, run_dir) == []
    mixed = written.mixed(asked, run_dir, data)
    rows = [example.ids for example in mixed.train]
    ours = [example.ids for example in data.train]
    assert len(rows) == 64 and mixed.held == data.held
    assert sum(row in ours for row in rows[:32]) == 32
    assert (
        rows[32:48] == write_windows(load(**vars(asked.model)).model, samples=16, length=16, seed=0).tolist()
    )
    assert rows == [example.ids for example in written.mixed(asked, run_dir, data).train]


def test_no_more_is_written_than_is_read_or_than_the_bound() -> None:
    assert written.shares(replace(DISTIL, steps=3, batch=4, self_written=0.25), 1000) == (9, 3)
    assert written.shares(replace(DISTIL, steps=None, self_written=1.0), 100) == (0, 100)
    assert written.shares(replace(DISTIL, steps=None, self_written=1.0), 10**6) == (10**6 - 4096, 4096)


def test_a_run_says_it_and_keeps_nothing_of_it(finished: Path) -> None:
    assert metrics(finished)["recover_self_written"] == 0.5
    told = [event.data["text"] for event in events(finished, "message")]
    assert "Of them 32 are trained on, beside 32 that the dense model wrote" in told
    assert watch.refresh(finished).stages[2] == "write"
    assert not (finished / "checkpoint" / "written").exists()


@pytest.mark.parametrize("top_k", [0, 8])
def test_stopped_while_it_writes_and_resumed_gives_the_same(
    tmp_path: Path, asked: RunSpec, finished: Path, top_k: int
) -> None:
    spec = replace(asked, recover=replace(asked.recover, top_k=top_k))
    run_dir = launch.create(tmp_path, spec, mine=True)

    def stop_there(event: Event) -> None:
        if event.type == "progress" and watch.refresh(run_dir).stage == "write":
            (run_dir / STOP).touch()

    with pytest.raises(StopRequested):
        execute(run_dir, stop_there)
    assert watch.refresh(run_dir).stage == "write"
    write_status(run_dir, Status(created=1.0))
    execute(run_dir)
    expected = metrics(finished) if not top_k else metrics(done(tmp_path / "whole", spec))
    assert metrics(run_dir) == expected


def test_a_pruned_run_is_trained_on_what_its_dense_model_writes(
    tmp_path: Path, asked: RunSpec, finished: Path
) -> None:
    cut = done(tmp_path, replace(asked, recover=RecoverSpec()))
    again = replace(asked, goal="recover", model=ModelSpec(str(cut), "cpu"))
    ours, theirs = metrics(done(tmp_path, again)), metrics(finished)
    assert ours["recover_held_kl_after"] == theirs["recover_held_kl_after"]


def test_a_share_is_a_share() -> None:
    with pytest.raises(SpecError, match="self-written"):
        replace(DISTIL, self_written=1.5)
