"""The registry: names to components, and a helpful word for a name that is not there."""

from __future__ import annotations

import pytest

from core.errors import InputError, UnknownNameError
from core.registry import Registry


def registry() -> Registry:  # type: ignore[type-arg]
    found: Registry = Registry("criterion")  # type: ignore[type-arg]
    for name in ("taylor_first", "l2"):
        found.register(
            name, paper="arXiv:1", summary="Ranks.", needs=("gradient",), options={"p": (2, "the norm")}
        )(print)
    return found


def test_entries_come_in_order_with_their_facts() -> None:
    found = registry()
    assert found.names() == ["taylor_first", "l2"] == [entry.name for entry in found]
    assert found["l2"].needs == ("gradient",)
    assert found["l2"].describe() == {
        "name": "l2",
        "paper": "arXiv:1",
        "equation": "",
        "needs": ["gradient"],
        "summary": "Ranks.",
        "options": {"p": {"default": 2, "meaning": "the norm"}},
    }


def test_a_misspelt_name_gets_the_nearest_and_all() -> None:
    with pytest.raises(UnknownNameError) as caught:
        registry()["tailor_first"]
    assert str(caught.value) == (
        "Unknown criterion 'tailor_first'. Did you mean 'taylor_first'? Available: taylor_first, l2."
    )
    assert isinstance(caught.value, InputError)


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        registry().register("l2", paper="", summary="")(lambda: None)
