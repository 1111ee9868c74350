from __future__ import annotations

from core.criteria import CRITERIA
from core.methods import METHODS
from pruneviz.figures.training_options import options_info, own_options_info, to_browser


def test_every_option_is_offered_with_what_the_registry_says():
    found = {one.name: one for one in options_info("nuteprune", "demo", {"gap": 0.05})}
    entry = METHODS["nuteprune"]
    assert set(found) == set(entry.options) - {"steps"}
    for name, one in found.items():
        option = entry.options[name]
        assert (one.meaning, one.default, one.choices) == (
            option.help,
            option.value,
            list(option.choices),
        )
    assert (found["gap"].default, found["gap"].value, found["gap"].own) == (0.1, 0.05, True)
    assert (found["warmup"].default, found["warmup"].preset, found["warmup"].own) == (0.4, 0.15, False)
    assert (found["gap"].low, found["gap"].high) == (0.0, 1.0)


def test_options_of_the_criterion_it_starts_from_stand_below():
    last = options_info("nuteprune", "demo", {"aggregation": "max"}, CRITERIA["taylor_first"])[-1]
    assert last.meaning.startswith("taylor_first: how the structures of a unit are combined")
    assert (last.name, last.value, last.own, last.where) == (
        "aggregation", "max", True, {"start_from": "taylor_first"},
    )  # fmt: skip


def test_a_field_suits_its_option():
    kinds = {
        one["name"]: one["kind"]
        for one in to_browser("demo", options_info("nuteprune", "demo", {}))["options"]
    }
    names = ("stage_1", "rule", "batch", "gap", "start_from")
    assert [kinds[name] for name in names] == ["flag", "choice", "whole", "number", "text"]


def test_a_method_that_ranks_has_its_own_options():
    rows = own_options_info("taylor_vector", {"vector": "structure"})
    assert [row.name for row in rows] == ["aggregation", "vector"]
    assert [(row.value, row.own) for row in rows] == [("sum", False), ("structure", True)]
    assert own_options_info("random", {}) == []
