"""Units chosen by hand: as text, as a file, as a plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.errors import NotPrunableError, SpecError
from core.graph.records import Graph
from core.plan.chosen import chosen_plan
from core.plan.cost import cost
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.spec.units import numbers_text, parse_numbers, parse_units, read_plan_file, units_entries
from tests.handmade import graph_of, tiny


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(tiny())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("3", (3,)),
        ("0-3, 7", (0, 1, 2, 3, 7)),
        ("7;1–2", (1, 2, 7)),
        ("2-2,2,1-3", (1, 2, 3)),
        ("all", tuple(range(9))),
        (" ALL ", tuple(range(9))),
    ],
)
def test_numbers_and_ranges_are_read(text: str, found: tuple[int, ...]) -> None:
    assert parse_numbers(text, 9) == found
    assert parse_numbers(numbers_text(found)) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "No unit was given; write numbers and ranges, for example 0-3, 7, or all."),
        ("5-2", "The range 5-2 runs backwards; write 2-5."),
        ("9", "There is no unit 9; the units are 0 to 8."),
        ("7-12", "There is no unit 12; the units are 0 to 8."),
        ("0-999999999", "There is no unit 999999999; the units are 0 to 8."),
        ("-1", "'-1' is no unit number and no range"),
        ("1-2-3", "'1-2-3' is no unit number and no range"),
        ("two", "'two' is no unit number and no range"),
    ],
)
def test_what_is_no_selection_is_explained(text: str, said: str) -> None:
    with pytest.raises(SpecError) as error:
        parse_numbers(text, 9)
    assert said in str(error.value)


def test_a_range_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(SpecError, match="There is no unit 99999999999; no group has 10,000,000 units"):
        parse_numbers("0-99999999999")


def test_entries_of_one_group_are_put_together_and_written_back() -> None:
    units = parse_units(["L01.ffn_channel=4", "L00.query_head=2", "L01.ffn_channel=0-3"])
    assert units == {"L00.query_head": (2,), "L01.ffn_channel": (0, 1, 2, 3, 4)}
    assert units_entries(units) == ["L00.query_head=2", "L01.ffn_channel=0-4"]


@pytest.mark.parametrize(
    "document", [{"removed": {"L00.query_head": [3, 1]}, "model": "x"}, {"L00.query_head": [1, 3]}]
)
def test_a_plan_file_is_read(tmp_path: Path, document: object) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(document))
    assert read_plan_file(file) == {"L00.query_head": (1, 3)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[1]", "units must map groups to unit numbers, got [1]"),
        ('{"a": "0-3"}', "units of a must be a list of whole numbers from 0 up, got '0-3'"),
        ('{"a": [true]}', "got [True]"),
        ('{"removed": {}}', "removes nothing"),
    ],
)
def test_what_is_no_plan_file_is_explained(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(SpecError) as error:
        read_plan_file(file)
    assert said in str(error.value)


def test_the_plan_counts_what_goes_once(graph: Graph) -> None:
    units = {"residual_channel": (0, 1), "L00.ffn_channel": (0, 1, 2)}
    plan = chosen_plan(graph, units)
    one_by_one = sum(cost(graph, {}).params - cost(graph, {group: units[group]}).params for group in units)
    assert plan.before and plan.after == cost(graph, units)
    # Three matrices of the layer have two crossings with each of three channels.
    assert one_by_one - (plan.before.params - plan.after.params) == 3 * 3 * 2
    assert plan.method == "manual" and plan.kinds == ("ffn_channel", "residual_channel")
    assert plan.target == plan.sparsity == (plan.before.params - plan.after.params) / plan.params_in_scope


def test_heads_and_key_value_groups_may_be_chosen_together(graph: Graph) -> None:
    plan = chosen_plan(graph, {"L00.kv_group": (0,), "L00.query_head": (1, 2)})
    assert plan.after == cost(graph, {"L00.query_head": (0, 1, 2)})


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ({}, "No unit is chosen"),
        ({"L07.query_head": (0,)}, "This model has no group 'L07.query_head'"),
        ({"L00.query_head": (9,)}, "L00.query_head has units 0 to 3"),
        ({"L00.query_head": (0, 1, 2, 3)}, "removes all 4 units of L00.query_head; at least one must stay"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(graph: Graph, units: dict[str, tuple[int, ...]], said: str) -> None:
    with pytest.raises(NotPrunableError) as error:
        chosen_plan(graph, units)
    assert said in str(error.value)


def test_a_spec_keeps_its_units_and_needs_the_method_that_goes_with_them() -> None:
    spec = RunSpec(prune=PruneSpec("manual", units={"b": (2, 1), "a": (0,)}))
    assert RunSpec.from_json(spec.to_json()) == spec and list(spec.prune.units) == ["a", "b"]
    for method, units in (("manual", {}), ("l2", {"a": (0,)})):
        with pytest.raises(SpecError, match="manual with the units that go"):
            PruneSpec(method, units=units)
