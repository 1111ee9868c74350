"""How labels that meet are tied."""

from __future__ import annotations

import numpy as np

from core.graph.labels import LabelStore, unique_rows


def labels(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def store(count: int) -> LabelStore:
    found = LabelStore()
    found.fresh(count)
    return found


def test_one_to_one_goes_together() -> None:
    s = store(4)
    assert len(s.tie(labels(1, 2, 1, 2), labels(3, 4, 3, 4))) == 0
    assert s.find(labels(1, 2, 3, 4)).tolist() == [1, 2, 1, 2]


def test_one_to_many_is_shared() -> None:
    s = store(4)
    assert s.tie(labels(1, 1, 1), labels(2, 3, 4)).tolist() == [1]
    assert len(set(s.find(labels(1, 2, 3, 4)).tolist())) == 4
    assert s.shares().tolist() == [[1, 2], [1, 3], [1, 4]]


def test_a_centre_whose_leaves_become_one_joins_them() -> None:
    s = store(3)
    s.tie(labels(1, 1), labels(2, 3))
    s.unite(labels(2), labels(3))
    assert len(s.shares()) == 0
    assert len(set(s.find(labels(1, 2, 3)).tolist())) == 1


def test_many_to_many_goes_together() -> None:
    s = store(4)
    s.tie(labels(1, 1, 2, 2), labels(3, 4, 3, 4))
    assert len(set(s.find(labels(1, 2, 3, 4)).tolist())) == 1


def test_degrees_are_those_of_labels_not_of_classes() -> None:
    s = store(4)
    s.unite(labels(1), labels(2))
    # 1 and 2 stand for two channels of one activation, not for one that is spread over both.
    s.tie(labels(1, 2), labels(3, 4))
    assert len(set(s.find(labels(1, 2, 3, 4)).tolist())) == 1


def test_zero_says_nothing() -> None:
    s = store(2)
    s.tie(labels(0, 1), labels(2, 0))
    assert s.find(labels(0, 1, 2)).tolist() == [0, 1, 2]


def test_a_vector_applied_in_two_places_stays_and_is_a_fixed_number_to_both() -> None:
    s = store(6)
    vector = labels(1, 2)
    s.tie(vector, labels(3, 4), vector, ("first", "aten.add"))
    s.tie(vector, labels(5, 6), vector, ("second", "aten.add"))
    s.settle()
    assert s.find(labels(1, 3, 5)).tolist() == [1, 3, 5]
    assert [(a.kind, a.module, a.lines.tolist()) for a in s.across] == [
        ("constant", "first", [[3, 4]]),
        ("constant", "second", [[5, 6]]),
    ]


def test_a_vector_applied_once_goes_along() -> None:
    s = store(4)
    vector = labels(1, 2)
    s.tie(labels(3, 4), vector, vector, ("norm", "aten.mul"))
    s.settle()
    assert s.find(labels(3, 4)).tolist() == s.find(vector).tolist()
    assert s.across == []


def test_distinct_rows_stand_in_order_of_appearance() -> None:
    rows = np.array([[5, 6], [1, 2], [5, 6], [3, 4]])
    distinct, which = unique_rows(rows)
    assert distinct.tolist() == [[5, 6], [1, 2], [3, 4]]
    assert which.tolist() == [0, 1, 0, 2]
