from __future__ import annotations

import pytest

from core.runs.events import Event
from pruneviz.figures.training import Span, cost_html, training_figure, training_html, training_info


def told(name: str, values: dict[int, float]) -> list[Event]:
    return [
        Event("metric", "train", {"name": f"train.{name}", "step": s, "value": v}) for s, v in values.items()
    ]


def events() -> list[Event]:
    return [
        *told("target", {1: 0.1, 2: 0.2, 3: 0.2}),
        *told("expected", {1: 0.05, 2: 0.1, 3: 0.19}),
        *told("kl", {1: 0.5, 3: 0.4}),
        *told("teacher", {1: 0.0, 2: 0.0, 3: 0.08}),
        *told("skipped", {1: 0, 2: 1, 3: 1}),
        *told("seconds_per_step", {1: 9.0, 2: 2.0, 3: 3.0}),
        *told("memory_gib", {1: 1.5, 2: 1.25}),
        *told("ppl_cut", {3: 40.0}),
        Event("metric", "baseline", {"name": "ppl_before", "step": 0, "value": 20.0}),
    ]


def test_the_numbers_are_those_of_the_events():
    info = training_info(events(), steps=10)
    assert info.curves["expected"] == ([1, 2, 3], [0.05, 0.1, 0.19]) and "ppl_before" not in info.curves
    assert info.teachers == [Span(1, 2, 0.0), Span(3, 3, 0.08)]
    assert (info.done, info.skipped, info.seconds_per_step, info.memory_gib) == (3, 1, 3.0, 1.5)
    html = training_html(info)
    for text in ("3 of 10", "19.0 %", "8.0 % sparse", "3 s", "1.5 GiB", "Steps skipped: 1."):
        assert text in html
    assert training_info([]).empty


def test_a_resumed_run_makes_steps_again_and_the_last_word_counts():
    again = [*events(), *told("expected", {2: 0.11}), *told("teacher", {2: 0.01})]
    info = training_info(again)
    assert info.curves["expected"] == ([1, 2, 3], [0.05, 0.11, 0.19])
    assert [span.sparsity for span in info.teachers] == [0.0, 0.01, 0.08]


def test_whose_memory_it_is_is_said_where_several_processes_train():
    info = training_info(events(), processes=2)
    assert "Memory of one of 2 processes, at most" in training_html(info)
    assert "This run, memory of one of 2 processes" in cost_html(info)
    assert "processes" not in training_html(training_info(events()))


def test_without_a_teacher_it_is_said():
    info = training_info([*told("expected", {1: 0.1}), *told("next_token_loss", {1: 3.0})])
    assert info.teachers == [] and "from the text alone" in training_html(info)


def test_long_curves_are_thinned_and_keep_their_end():
    info = training_info(told("expected", {step: float(step) for step in range(2000)}))
    steps, _ = info.curves["expected"]
    assert len(steps) <= 402 and steps[0] == 0 and steps[-1] == 1999


def test_a_strip_of_very_many_teachers_is_thinned_and_keeps_its_ends():
    teachers = {step: step % 37 / 100 for step in range(1, 10_001)}
    figure = training_figure(training_info([*told("expected", {1: 0.1}), *told("teacher", teachers)]))
    (strip,) = [trace for trace in figure.data if trace.type == "heatmap"]
    assert len(strip.x) <= 402 and (strip.x[0], strip.x[-1]) == (0.5, 10_000.5)
    few = training_info(told("teacher", dict.fromkeys(range(1, 10_000), 0.0) | {10_000: 0.01}))
    assert few.teachers == [Span(1, 9_999, 0.0), Span(10_000, 10_000, 0.01)], "to the step where few"


def test_the_cost_stands_beside_table_9():
    html = cost_html(training_info(events()))
    assert "Table 9" in html and "28.69 GB" in html and "This run" in html
    assert cost_html(training_info([])) == ""


def test_every_curve_and_the_strip_are_drawn_over_one_axis():
    figure = training_figure(training_info(events(), steps=10))
    assert {trace.type for trace in figure.data} == {"scatter", "heatmap"} and len(figure.data) == 5
    (strip,) = [trace for trace in figure.data if trace.type == "heatmap"]
    assert list(strip.x) == [0.5, 2.5, 3.5] and list(strip.z[0]) == [0.0, 0.08]
    assert figure.layout.xaxis.range[1] == pytest.approx(10.5)
