from __future__ import annotations

from core.events import Event
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
