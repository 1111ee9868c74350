"""A second evaluation text stands beside the first wherever a perplexity is, with what it depends on."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import pytest

from core.models.readme import card
from core.plan.allocation import allocate
from core.report.page import document
from core.report.run import Run
from core.report.sections import section
from core.results.perplexity import Perplexity, keep_perplexities
from core.results.sweep import Other, OtherText, Point, Sweep
from core.runs.events import Event
from core.spec.evaluate import EvalSpec
from core.spec.run import RunSpec
from pruneviz.actions.forms import form_from, spec_from
from pruneviz.data import runs
from pruneviz.data.contenders import line_up
from pruneviz.figures.compare import compare_html, compare_info, entries_of
from pruneviz.figures.curves import curves_figure, curves_info
from pruneviz.figures.preview import warnings_for
from pruneviz.figures.run_detail import run_facts
from pruneviz.figures.runs_table import row_info, table_html
from pruneviz.figures.slides import slides
from pruneviz.figures.sweep import sweep_figure, sweep_info, table_csv
from pruneviz.figures.sweep import table_html as sweep_table_html
from pruneviz.figures.training import training_figure, training_html, training_info
from tests.pruneviz.samples import MEASURED, graph, make_run

SPEECHES, FACTS = "Speeches, evaluation part", "World Factbook, evaluation part"
LOSSES = (0.2, -0.1, 0.1, -0.2)
MADE = {
    "calibration_text": "Speeches, calibration part",
    "calibration_windows": 16,
    "calibration_length": 128,
}
CALIBRATED = "Speeches, calibration part, 16 windows of 128 tokens, seed 3"
ON = "4 windows of 256 tokens, 1,020 scored, Workbench's protocol"


def measured(ppl: float, text: str, losses=LOSSES) -> Perplexity:
    nll = math.log(ppl)
    return Perplexity(ppl, nll, 1024, 256, text, tuple(nll + loss for loss in losses), text=text, sha256=text)


def row(text: str, before: float, after: float) -> dict[str, object]:
    on = {"ppl_text": text, "ppl_sha256": text, "ppl_window": 256, "ppl_tokens": 1024, "ppl_windows": 4}
    numbers = {"ppl_before": before, "ppl_stderr_before": 1.0, "ppl_after": after, "ppl_stderr_after": 2.0}
    return {**on, "ppl_protocol": "workbench", **MADE, "seed": 3, **numbers}


ROWS = [row(SPEECHES, 26.2, 59.2), row(FACTS, 18.0, 18.5)]
METRICS = {
    **MEASURED, **{name: value for name, value in ROWS[0].items() if name.startswith("ppl")},
    "calibration_text": MADE["calibration_text"], "perplexities": ROWS,
}  # fmt: skip


@pytest.fixture
def run_dir(tmp_path):
    """A run on two texts: the second changed no more than by chance."""
    path = make_run(tmp_path, "a", metrics=METRICS)
    keep_perplexities(path, "dense", [measured(26.2, SPEECHES), measured(18.0, FACTS)])
    keep_perplexities(path, "pruned", [measured(59.2, SPEECHES), measured(18.5, FACTS, LOSSES[::-1])])
    return path


def test_the_table_of_runs_and_the_run_itself(run_dir):
    record = runs.read_run(run_dir)
    first, second = row_info(record).perplexities
    assert (first.change, first.text) == ("26.2 → 59.2", "Speeches")
    assert (second.change, second.text) == ("18.0 → 18.5", "World Factbook")
    assert second.about == f"{FACTS}, {ON}. Calibrated on {CALIBRATED}"
    assert "<small>World Factbook</small>" in table_html([row_info(record)])
    assert run_facts(record, 0.0)[-6:-1] == [
        ("Perplexity, Speeches", "26.2 ± 1.0 → 59.2 ± 2.0 (+126 %)"),
        ("Measured on, Speeches", f"{SPEECHES}, {ON}"),
        ("Perplexity, World Factbook", "18.0 ± 1.0 → 18.5 ± 2.0 (+2.8 %, within noise)"),
        ("Measured on, World Factbook", f"{FACTS}, {ON}"),
        ("Calibrated on", CALIBRATED),
    ]


def test_a_measurement_by_itself_has_its_texts(tmp_path):
    rows = [
        {**row(text, 1.0, 1.0), "ppl": ppl, "ppl_stderr": 1.0}
        for text, ppl in ((SPEECHES, 26.0), (FACTS, 18.0))
    ]
    rows = [
        {name: value for name, value in each.items() if not name.endswith(("before", "after"))}
        for each in rows
    ]
    metrics = {
        **{name: value for name, value in rows[0].items() if name.startswith("ppl")},
        "perplexities": rows,
    }
    record = runs.read_run(make_run(tmp_path, "a", RunSpec(goal="evaluate"), metrics=metrics))
    assert [of.change for of in row_info(record).perplexities] == ["26.0", "18.0"]
    assert ("Perplexity, World Factbook", "18.0 ± 1.0") in run_facts(record, 0.0)


def test_the_comparison_judges_each_text_by_its_own_noise(run_dir):
    records = runs.list_runs(run_dir.parent)
    lineup = line_up(records, ["dense", "a"], "demo")
    info = compare_info(entries_of(lineup, records))
    rows = {each.title: each for each in info.rows}
    first, second = rows["Perplexity, Speeches"], rows["Perplexity, World Factbook"]
    assert [cell.text for cell in second.cells] == ["18.0 ± 1.0", "18.5 ± 2.0"]
    assert (first.cells[1].verdict, second.cells[1].verdict) == ("worse", "noise")
    assert first.about.startswith(f"{SPEECHES}, {ON}") and second.about.startswith(f"{FACTS}, {ON}")
    assert [cell.text for cell in rows["Calibrated on"].cells] == ["–", CALIBRATED]
    assert compare_html(info).count("World Factbook") >= 1
    cover = slides(lineup, entries_of(lineup, records))[0].body
    assert "18.0 ± 1.0 → 18.5 ± 2.0" in cover and "World Factbook" in cover and CALIBRATED in cover


def test_a_model_that_was_measured_on_one_text_has_a_dash(run_dir):
    old = {name: value for name, value in METRICS.items() if name not in ("perplexities", "ppl_sha256")}
    make_run(run_dir.parent, "old", metrics=old)
    records = runs.list_runs(run_dir.parent)
    info = compare_info(entries_of(line_up(records, ["a", "old"], "demo"), records))
    (second,) = [each for each in info.rows if each.title == "Perplexity, World Factbook"]
    assert [(cell.text, cell.verdict) for cell in second.cells] == [("18.5 ± 2.0", ""), ("–", "")]


def test_report_and_model_card(run_dir):
    page = section(Run(run_dir))
    assert "Perplexity, World Factbook" in page and ">+2.8%, within the noise<" in page
    assert "Perplexity, Speeches" in page and ">+126.0%<" in page and CALIBRATED in page
    both = document([Run(run_dir), Run(run_dir)])  # a row per run and text, with all they depend on
    assert both.count(f"<td>{FACTS}, {ON.replace(chr(39), '&#39;')}</td><td>{CALIBRATED}</td>") == 2
    text = card(graph(), allocate(graph(), None, sparsity=0.3), METRICS, stock=True)
    assert "| Perplexity, World Factbook | 18.00 ± 1.00 | 18.50 ± 2.00 |" in text
    assert f"- calibrated on {CALIBRATED}" in text and f"; on {FACTS}, {ON}" in text


def sweep() -> Sweep:
    def point(method: str, ppl: float, other: float, params: int) -> Point:
        made = Point(method, 0.1, "local", "none", 0, 16, 0.1, 0.1, params, params, ppl, ppl_stderr=1.0)
        return replace(made, others=(Other(other, 0.5, 0.02),))

    points = (point("wanda", 30.0, 50.0, 800), point("l2", 40.0, 20.0, 800))
    facts = OtherText(FACTS, "b", 256, 1024, "workbench", 18.0, 0.7)
    on = {
        "text": SPEECHES,
        "sha256": "a",
        "window": 256,
        "tokens": 1024,
        "calibration": "c",
        "others": (facts,),
    }
    return Sweep(20.0, 1000, 1000, planned=2, points=points, **on)


def test_a_sweep_shows_both_and_either_draws_the_front():
    first, second = sweep_info(sweep()), sweep_info(sweep(), FACTS)
    for info, text, best, line in ((first, SPEECHES, "wanda", 20.0), (second, FACTS, "l2", 18.0)):
        assert info.sweep.text == text and [key[0] for key in info.front] == [best]
        assert sweep_figure(info, log=False).layout.shapes[0].y0 == line
        page = sweep_table_html(info)
        for said in (
            "30.0 ± 1.0",
            "50.0 ± 0.5",
            "20.0 ± 0.5",
            "+178 %",
            f"{FACTS}, 4 windows",
            "Calibrated on c",
        ):
            assert said in page, said
    lines = list(csv.DictReader(io.StringIO(table_csv(first))))
    assert [(each["method"], each["text"], each["ppl"], each["pareto"]) for each in lines] == [
        ("wanda", SPEECHES, "30.0", "True"), ("l2", SPEECHES, "40.0", "False"),
        ("wanda", FACTS, "50.0", "False"), ("l2", FACTS, "20.0", "True"),
    ]  # fmt: skip
    assert all(each["protocol"] == "workbench" and each["calibration"] == "c" for each in lines)
    assert sweep_info(sweep(), "gone").sweep.text == SPEECHES


def told(name: str, *values: float) -> list[Event]:
    return [Event("metric", "train", {"name": name, "step": s, "value": v}) for s, v in enumerate(values)]


def test_what_is_followed_in_training_has_a_line_a_text():
    names = ("recover.held_ppl", f"recover.ppl.{SPEECHES}", f"recover.ppl.{FACTS}")
    figure = curves_figure(curves_info([event for name in names for event in told(name, 60.0, 40.0)]))
    titles = [title.text for title in figure.layout.annotations]
    assert titles[2] == "Perplexity of World Factbook, not trained on" and len(figure.data) == 3
    events = [*told("train.ppl_cut", 90.0, 50.0), *told(f"train.ppl_cut.{FACTS}", 80.0, 45.0)]
    info = training_info(events)
    lines = {line.name: line for line in training_figure(info).data}
    assert list(lines["World Factbook"].y) == [80.0, 45.0]
    assert lines["World Factbook"].line.dash == "dash" and "… on World Factbook" in training_html(info)


def test_the_form_keeps_the_texts_and_warns_of_those_that_calibrate_too():
    spec = RunSpec(evaluate=EvalSpec("a.txt", also=("factbook", "b.txt")))
    form = form_from(spec)
    assert form["evaluate.also"] == "factbook,b.txt"
    assert spec_from(spec.model, form).evaluate.texts == ("a.txt", "factbook", "b.txt")
    assert spec_from(spec.model, {**form, "evaluate.also": ""}).evaluate.texts == ("a.txt",)
    same = replace(spec, calibration=replace(spec.calibration, name="b.txt"))
    assert any("the same text, b.txt" in text for text in warnings_for(same))
    bundled = replace(spec, calibration=replace(spec.calibration, name="factbook"))
    assert not warnings_for(bundled), "its parts share nothing"
