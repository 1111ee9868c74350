from __future__ import annotations

from core.runs.events import Event
from pruneviz.figures.curves import curves_figure, curves_info


def _metric(name: str, step: float, value: float) -> Event:
    return Event("metric", "evaluate", {"name": name, "step": step, "value": value})


def test_only_what_makes_a_line_is_a_curve():
    events = [_metric("loss", 0, 2.0), _metric("loss", 5, 1.0), _metric("ppl_before", 0, 26.2)]
    info = curves_info(events)
    assert info.curves == {"loss": ([0.0, 5.0], [2.0, 1.0])} and not info.empty
    assert curves_info([]).empty


def test_the_figure_draws_every_curve_against_layers_where_they_are_layers():
    events = [
        _metric(f"sensitivity.{kind}", layer, 30.0) for kind in ("attention", "ffn") for layer in (0, 1)
    ]
    figure = curves_figure(curves_info(events))
    assert len(figure.data) == 2 and figure.layout.xaxis.title.text == "Layer"


def test_what_is_drawn_of_a_long_run_is_bounded_and_keeps_its_end():
    names = ("recover.loss", "recover.learning_rate")
    events = [_metric(name, step, 1.0 + step) for step in range(10_000) for name in names]
    loss, rate = curves_figure(curves_info(events)).data
    assert len(loss.x) <= 402 and (loss.x[0], loss.x[-1], loss.y[-1]) == (0, 9_999, 10_000)
    assert loss.mode == "lines" and list(loss.x) == list(rate.x), "one hover reads both"
    assert curves_figure(curves_info(events[:60])).data[0].mode == "lines+markers"


def test_curves_of_different_things_have_a_scale_and_a_name_each():
    values = {"recover.held_ppl": 200.0, "recover.learning_rate": 1e-4}
    figure = curves_figure(curves_info([_metric(n, step, v) for n, v in values.items() for step in (0, 1)]))
    assert [line.yaxis for line in figure.data] == ["y", "y2"]
    assert [title.text for title in figure.layout.annotations] == [
        "Perplexity of the text kept apart",
        "Learning rate",
    ]
    assert figure.layout.xaxis2.title.text == "Step"


def test_of_a_search_the_best_plan_of_each_share_is_drawn():
    told = [(5.0, 40.0), (20.001, 56.0), (19.999, 79.0), (20.0, 63.0), (10.0, 44.0), (30.0, 80.0)]
    info = curves_info([_metric("search.front", share, ppl) for share, ppl in told])
    assert info.curves["search.front"] == ([5.0, 10.0, 20.0, 30.0], [40.0, 44.0, 56.0, 80.0])
