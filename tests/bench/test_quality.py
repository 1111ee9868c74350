"""The quality bench on a tiny model: every way, equal tokens and equal time, and it goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.files import read_json
from core.runs import launch
from core.runs.artifacts import METRICS, read_spec
from core.runs.status import Status, read_status, write_status
from tests.bench import __main__ as bench
from tests.bench.quality import POINTS, Asked, points, run, spec_of
from tests.bench.quality_table import Result, mean_of, over_minutes, rows, seconds_of
from tests.stages.test_recover import words

__all__ = ["words"]


@pytest.mark.slow
def test_every_point_is_a_run_that_is_made_once(
    tmp_path: Path, tiny_llama_folder: Path, words: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "quality"
    given = {
        "model": str(tiny_llama_folder), "methods": "cut,distill+lora,nuteprune+distill", "seeds": "0,1",
        "train": str(words[0]), "measure": str(words[1]), "tokens": "128", "minutes": "0.005",
        "length": "16", "batch": "2", "window": "16", "read": "128", "folder": str(folder),
    }  # fmt: skip
    assert run(**given) == []
    runs = read_json(folder / POINTS)
    assert list(runs) == [point.key for point in points(Asked.of(given))] and len(runs) == 10
    taught = read_spec(folder / runs["distill+lora 0.2 1 tokens"])
    assert (taught.recover.steps, taught.recover.next_token, taught.seed) == (4, 0.5, 1)
    both = read_spec(folder / runs["nuteprune+distill 0.2 0 tokens"])
    assert both.recover.steps == both.prune.options["steps"] == 2
    told = (folder / "quality.md").read_text(encoding="utf-8")
    assert told.count("±") == 5 * 3 and "| dense |" in told
    assert "over minutes of training, 20%" in (folder / "quality.html").read_text(encoding="utf-8")
    monkeypatch.setattr(launch, "create", lambda *_, **__: pytest.fail("this run is there"))
    broken = folder / runs["distill+lora 0.2 0 tokens"]
    write_status(broken, Status(created=1.0))
    (broken / METRICS).unlink()
    run(**given)
    assert read_status(broken).state == "finished" and (broken / METRICS).exists()
    assert (folder / "quality.md").read_text(encoding="utf-8").count("|") == told.count("|")


def result(ppl: float, minutes: float = 1.0, method: str = "lora", budget: str = "tokens") -> Result:
    return Result(method, 0.2, budget, minutes, {"a": ppl}, {"a": 0.5}, {"a": 20.0})


def test_rows_are_means_over_seeds_with_the_error_of_the_mean() -> None:
    head, lines = rows([result(30.0), result(32.0, 2.0), result(40.0, method="cut")])
    assert head[5:] == ["perplexity, a", "nats from dense, a"]
    assert lines[0] == ["lora", "20%", "tokens", "2", "1.5 ± 0.5", "31.00 ± 1.00", "0.500 ± 0.000"]
    assert lines[1][3:6] == ["1", "1.0", "40.00"] and lines[2][0] == "dense"
    assert mean_of([1.0, 2.0, 3.0], 3) == "2.000 ± 0.577"


def test_a_curve_begins_with_the_cut_that_nobody_trained() -> None:
    several = [result(40.0, 0.0, "cut"), result(31.0), result(29.0, 5.0, budget="minutes")]
    assert over_minutes(several, "a") == {"lora": [(0.0, 40.0), (1.0, 31.0), (5.0, 29.0)]}
    assert over_minutes(several[1:2], "a") == {}


def test_what_was_spent_before_an_interruption_counts_and_the_pause_does_not(tmp_path: Path) -> None:
    stages = [("load", 0.0), ("recover", 10.0), ("load", 1000.0), ("recover", 1010.0), ("evaluate", 1015.0)]
    lines = [{"type": "stage", "stage": name, "data": {}, "time": when} for name, when in stages]
    lines.insert(2, {"type": "progress", "stage": "recover", "data": {}, "time": 40.0})
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert seconds_of(tmp_path) == 35.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seeds": "x"}, "seeds must be like"),
        ({"wat": "1"}, "has no option"),
        ({"methods": "x"}, "methods are"),
    ],
)
def test_what_is_not_understood_is_said(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        Asked.of(wrong)


def test_it_is_not_among_those_that_run_unnamed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "quality" not in bench.BENCHES and "quality" in bench.LONG
    assert bench.main(["qualty", "seeds=0"]) == 2
    assert "No bench qualty" in capsys.readouterr().err


def test_who_teaches_is_all_that_differs() -> None:
    asked = Asked(methods=("nuteprune", "nuteprune-dense", "nuteprune-alone"))
    specs = [spec_of(asked, point, 10) for point in points(asked) if point.seed == 0]
    taught = [spec.prune.options.pop("distillation", "progressive") for spec in specs]
    assert taught == ["progressive", "dense", "none"] and specs[0] == specs[1] == specs[2]
