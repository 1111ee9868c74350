"""What the Sensitivity tab asks for and shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import SpecError
from pruneviz.context import AppContext
from pruneviz.figures.sensitivity import SensitivityInfo
from pruneviz.tabs import sensitivity

FORM: list[Any] = [["FFN", "Each head alone"], "0.25, 0.5", "l2", 256]


def test_the_form_becomes_a_scan(tmp_path: Path) -> None:
    asked = sensitivity.spec_from(AppContext(tmp_path), "demo", *FORM).explore
    assert asked.analyses == ("groups", "sensitivity") and asked.sensitivity_kinds == ("ffn", "head")
    assert asked.sensitivity_ratios == (0.25, 0.5) and asked.sensitivity_criterion == "l2"
    assert asked.sensitivity_tokens == 256


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (0, [], "sensitivity_kinds"),
        (1, "2", r"numbers in \(0, 1\]"),
        (1, "", "at least one"),
        (3, None, "tokens"),
    ],
)
def test_what_cannot_be_scanned_is_refused(tmp_path: Path, at: int, value: Any, said: str) -> None:
    form = [*FORM[:at], value, *FORM[at + 1 :]]
    with pytest.raises(SpecError, match=said):
        sensitivity.spec_from(AppContext(tmp_path), "demo", *form)


def test_only_what_was_measured_is_shown() -> None:
    infos = SensitivityInfo({}, 20.0, heads={(0, 1): 21.0}), SensitivityInfo({("ffn", 0.5): {0: 21.0}})
    one, other = (sensitivity._shown(sensitivity._drawn(info, "Automatic", "a")) for info in infos)
    assert not one["lines"].visible and one["box"].visible
    assert other["lines"].visible and not other["box"].visible
