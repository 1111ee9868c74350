"""The registry: names to components, and a helpful word for a name that is not there."""

from __future__ import annotations

import pytest

from core.checked import checked
from core.errors import InputError, SpecError, UnknownNameError
from core.option import option
from core.registry import Registry, check_options


@checked
class Given:
    p: int = option(2, "the norm")
    tau: float = option(0.2, "how near", ge=0, le=1)


@checked
class Other:
    q: str = option("a", "which", choices=("a", "b", "1"))
    r: bool = option(False, "whether")


def registry() -> Registry:  # type: ignore[type-arg]
    found: Registry = Registry("criterion")  # type: ignore[type-arg]
    for name in ("taylor_first", "l2"):
        found.register(
            name,
            paper="arXiv:1",
            summary="Ranks.",
            needs=("gradient",),
            options=Given,
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
        "options": {
            "p": {"default": 2, "meaning": "the norm"},
            "tau": {"default": 0.2, "meaning": "how near", "within": [0, 1]},
        },
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


def test_options_have_defaults_and_keep_their_type() -> None:
    entry = registry()["l2"]
    assert entry.settings({}) == Given(2, 0.2)
    settings = entry.settings({"tau": 1, "of_another": 3})
    assert settings == Given(2, 1.0) and type(settings.tau) is float
    others = registry()
    others.register("other", paper="", summary="", options=Other)(print)
    assert others["other"].settings({"q": 1, "r": True}) == Other("1", True)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (
            {"taw": 0.1},
            UnknownNameError,
            "Unknown option of l2 'taw'. Did you mean 'tau'? Available: p, tau.",
        ),
        ({"p": 2.5}, SpecError, "l2: p must be a whole number, got 2.5; the norm."),
        ({"p": True}, SpecError, "a whole number, got True"),
        ({"tau": "near"}, SpecError, "a number from 0 to 1, got 'near'"),
        ({"tau": 1.01}, SpecError, "a number from 0 to 1, got 1.01"),
        ({"tau": float("nan")}, SpecError, "got nan"),
    ],
)
def test_an_option_that_is_not_accepted_is_explained(
    given: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        check_options([registry()["l2"]], given)
    assert said in str(caught.value)


def test_an_option_may_belong_to_any_of_several() -> None:
    found = registry()
    found.register("other", paper="", summary="", options=Other)(print)
    check_options(list(found), {"q": "b", "p": 3})
    with pytest.raises(SpecError, match="other: q must be one of a, b, 1, got 'c'; which"):
        check_options(list(found), {"q": "c"})
