from __future__ import annotations

import pytest

from core.criteria import CRITERIA
from core.errors import SpecError, UnknownNameError
from core.methods import METHODS
from pruneviz.data import methods


def test_every_method_is_offered_once_the_usual_ones_first():
    names = methods.names()
    assert names[:4] == ["recommended", "taylor_second", "taylor_first", "l2"]
    assert names[4:8] == ["l1", "random", "nuteprune", "manual"]
    assert sorted(names) == sorted(["recommended", *CRITERIA.names(), *METHODS.names(), "manual"])
    assert methods.ranking() == [name for name in names if name in CRITERIA.names()]


def test_each_says_what_it_is_about():
    for name in methods.names():
        entry = methods.find(name)
        assert entry and entry.name == name and entry.summary
    assert methods.find("tailor") is None
    assert methods.find("nuteprune") is METHODS["nuteprune"] and methods.trains("nuteprune")


def test_the_options_of_a_training_may_be_those_of_the_criterion_it_starts_from():
    methods.check("nuteprune", {"start_from": "taylor_first", "aggregation": "max", "gap": 0.05})
    assert methods.origin("nuteprune", {"start_from": ""}) is None
    for given, error, said in (
        ({"start_from": "l2", "aggregation": "max"}, UnknownNameError, "'aggregation'"),
        ({"start_from": "tailor_first"}, UnknownNameError, "Did you mean 'taylor_first'"),
        ({"gap": "wide"}, SpecError, "nuteprune: gap must be a number from 0 to 1, got 'wide'; sparsity g"),
    ):
        with pytest.raises(error, match=said):
            methods.check("nuteprune", given)
