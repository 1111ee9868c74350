"""Messages name options; on the page they name the labels of the form."""

from __future__ import annotations

import pytest
from markupsafe import Markup

from core.errors import LaunchError, SpecError
from core.spec.fields import OPTIONS
from pruneviz.data.labels import on_page
from pruneviz.figures import states

AUTO = OPTIONS["model.device_map"].choices["auto"]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "search_rounds must be a whole number from 0 up, got 'x'.",
            "“Rounds of the search” must be a whole",
        ),
        ("take at most --rounds 3.", "take at most “Rounds” 3."),
        ("take shorter windows (--length)", "take shorter windows (“Tokens per window”)"),
        ("add --device-map auto, or", f"add “Where weights rest: {AUTO}”, or"),
        ("what max_share and align leave", "what “Most of a group” and align leave"),
        ("ratio must be numbers", "“Share that goes” must be numbers"),
        ("calibration-batch must be", "“Windows at once” must be"),
        ("layers 9:4 is empty", "“Layers” 9:4 is empty"),
        ("kind_sparsity of ffn_channel: no", "“Sparsity of single kinds” of ffn_channel: no"),
    ],
)
def test_an_option_with_a_field_is_called_by_its_label(said: str, shown: str) -> None:
    assert on_page(said).startswith(shown)


@pytest.mark.parametrize(
    "said",
    [
        "take --dtype bfloat16.",
        "batch must be a divisor",
        "write max_share=0.5 or --set warmup=0.1.",
        "There is no folder 'search_rounds'.",
        "for them, start the page without --device-map.",
        "The layers of this model are as they were.",
    ],
)
def test_what_has_no_field_or_is_no_option_stays(said: str) -> None:
    assert on_page(said) == said
    assert on_page(Markup("<b>--rounds</b>")) == Markup("<b>--rounds</b>")


def test_every_label_of_a_form_has_one_option() -> None:
    titled = [option for option in OPTIONS.values() if option.title and option.flag]
    for option in titled:
        assert on_page(f"({option.flag.partition('/')[0]})") == f"(“{option.title}”)", option.name


def test_a_refusal_is_no_failure_and_names_the_label() -> None:
    refused = states.failure_html(SpecError("search_rounds must be a whole number, got 'x'."))
    assert "“Rounds of the search” must be" in refused and states.REFUSED in refused
    assert "Something went wrong" not in refused
    assert "Something went wrong" in states.failure_html(LaunchError("The engine has died."))
    assert "“Rounds” 2" in states.notes_html("take --rounds 2")
