"""Sizes of features: one curve per place, the second model beside the first."""

from __future__ import annotations

from core.results.activations import Activation, Activations
from pruneviz.figures.activations import about_html, activations_csv, activations_figure, activations_info


def record(scale: float = 1.0, tokens: int = 64) -> Activations:
    points = [
        Activation(layer, place, scale * (layer + 1), 2 * scale, 9 * scale)
        for layer in (1, 0)
        for place in ("attention", "ffn_out")
    ]
    return Activations(tuple(points), tokens, "a text")  # type: ignore[arg-type]


def test_curves_are_in_the_order_of_layers_and_what_is_missing_is_left_out() -> None:
    info = activations_info({"tiny": record()})
    assert [point.mean for point in info.curves["tiny"]["attention"]] == [1.0, 2.0]
    assert info.curves["tiny"]["ffn"] == () and not info.empty and not info.log
    figure = activations_figure(info)
    assert [trace.name for trace in figure.data] == ["What attention reads", "What its down projection reads"]
    assert (figure.layout.xaxis.tickmode, figure.layout.xaxis.dtick) == ("linear", 1), "no half layers"
    assert "64 tokens of “a text”" in about_html(info) and "mean 1.5 over all layers" in about_html(info)


def test_a_second_model_is_dotted_and_widely_different_sizes_get_a_logarithmic_axis() -> None:
    info = activations_info({"small": record(0.1), "large": record(10.0)})
    figure = activations_figure(info)
    assert info.log and figure.layout.yaxis.type == "log"
    assert [trace.line.dash for trace in figure.data] == ["solid", "solid", "dot", "dot"]
    assert figure.data[2].name == "large: what attention reads"
    assert "large,1,attention,20.0,20.0,90.0" in activations_csv(info).splitlines()


def test_nothing_to_draw() -> None:
    assert activations_info({"tiny": Activations((), 0, "t")}).empty
