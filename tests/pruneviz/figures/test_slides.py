from __future__ import annotations

import json

from pruneviz.data import runs
from pruneviz.data.contenders import line_up
from pruneviz.figures.compare import entries_of
from pruneviz.figures.slides import slides
from tests.pruneviz.samples import MEASURED, make_run
from tests.pruneviz.scored import task, write_benchmarks

ATTACK = '<img src=x onerror="window.pwned=1"> ${1}'


def talk(folder, *keys):
    records = runs.list_runs(folder)
    lineup = line_up(records, ["dense", *keys], "demo")
    return slides(lineup, entries_of(lineup, records))


def test_a_recovered_run_shows_before_and_after_together(tmp_path):
    metrics = {**MEASURED, "ppl_pruned": 80.0, "ppl_recovered": 59.2}
    path = make_run(tmp_path, "a", metrics=metrics)
    write_benchmarks(
        path, dense=[task("piqa", "11")], pruned=[task("piqa", "00")], recovered=[task("piqa", "10")]
    )
    cover, costs, scores, numbers, *_, made = talk(tmp_path, "a")
    assert "26.2 → 80.0 → 59.2" in cover.body
    assert "84.2 %" in costs.body and "Parameters" in costs.body
    assert scores.body.count('class="row"') == 3 and "Before recovery" in scores.body
    assert "Before recovery" in numbers.body and "python -m core prune demo" in made.body


def test_the_numbers_are_those_that_some_model_has(tmp_path):
    make_run(tmp_path, "a", metrics={"ppl_before": 26.2, "ppl_after": 59.2, "ppl_text": "bundled"})
    (numbers,) = [one for one in talk(tmp_path, "a") if one.title == "In numbers"]
    assert "59.2" in numbers.body and "<td>Memory" not in numbers.body
    assert "Not measured of any: " in numbers.body and "Speed of writing" in numbers.body


def test_one_slide_a_prompt_with_differences_marked_and_everything_escaped(tmp_path):
    path = make_run(tmp_path, "a", metrics=MEASURED)
    sample = {"prompt": ATTACK, "dense": {"text": "It is Paris."}, "pruned": {"text": f"It is {ATTACK}"}}
    (path / "samples.json").write_text(json.dumps([sample]))
    (slide,) = [one for one in talk(tmp_path, "a") if one.title.startswith("“")]
    assert slide.title == f"“{ATTACK}”"
    assert "<img" not in slide.body and "<mark>&lt;img src=x" in slide.body and "It is Paris." in slide.body


def test_a_prompt_that_nobody_wrote_anything_to_has_no_slide(tmp_path):
    path = make_run(tmp_path, "a", metrics=MEASURED)
    silent = {"prompt": "Why?", "dense": {"text": ""}, "pruned": {"text": ""}}
    half = {"prompt": "Who?", "dense": {"text": ""}, "pruned": {"text": "Me."}}
    (path / "samples.json").write_text(json.dumps([silent, half]))
    (slide,) = [one for one in talk(tmp_path, "a") if one.title.startswith("“")]
    assert slide.title == "“Who?”" and "ended its answer at once" in slide.body and "Me." in slide.body


def test_what_a_run_did_not_leave_has_no_slide(tmp_path):
    make_run(tmp_path, "a")
    assert talk(tmp_path, "a")[0].title.startswith("Pruned and dense")
    assert not [one for one in talk(tmp_path, "a") if "still can do" in one.title or "layer" in one.title]
