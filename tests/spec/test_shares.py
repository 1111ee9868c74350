"""Shares as people type them: 0.2, 0,2 and 20 % say the same everywhere; 20 alone is refused with a hint."""

from __future__ import annotations

import pytest

from core.errors import SpecError
from core.spec.checks import parse_share, parse_shares
from core.spec.explore import ExploreSpec
from core.spec.fields import OPTIONS
from core.spec.prune import PruneSpec
from core.spec.settings import parse_settings
from core.spec.sweep import SweepSpec

SINGLE = ("prune.sparsity", "prune.max_share", "recover.dropout", "recover.self_written")
SEVERAL = ("sweep.sparsities", "explore.sensitivity_ratios")


@pytest.mark.parametrize("typed", ["0.2", "0,2", "20 %", "20%", " 20 % "])
def test_every_share_reads_every_way_to_write_it(typed: str) -> None:
    assert {path: OPTIONS[path].read(typed) for path in SINGLE} == dict.fromkeys(SINGLE, 0.2)
    assert {path: OPTIONS[path].read(typed) for path in SEVERAL} == dict.fromkeys(SEVERAL, (0.2,))
    assert OPTIONS["prune.kind_sparsity"].read(f"ffn_channel={typed}") == {"ffn_channel": 0.2}
    assert parse_settings([f"warmup={typed}"]) == {"warmup": 0.2}


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("10 %, 20%", (0.1, 0.2)),
        ("0.1,0.2", (0.1, 0.2)),
        ("0,1, 0,2", (0.1, 0.2)),
        ("0,1,0,2", (0.1, 0.2)),
        ("0, 0.5", (0.0, 0.5)),
        ("0,0.5", (0.0, 0.5)),
        (["5 %", 0.5], (0.05, 0.5)),
        ("", ()),
    ],
)
def test_several_are_parted_by_commas_that_are_no_decimal_points(typed: object, read: object) -> None:
    assert parse_shares(typed) == read


def test_percents_are_exact() -> None:
    assert all(parse_share(f"{n} %") == float(f"0.{n:02}") for n in range(100))
    assert parse_share("33.3 %") == 0.333 and parse_share("12,5%") == 0.125


def test_a_number_that_is_no_share_is_refused_with_what_was_meant() -> None:
    with pytest.raises(SpecError, match=r"got 20; write 0\.2 for 20 %"):
        OPTIONS["prune.sparsity"].read("20")
    with pytest.raises(SpecError, match=r"got 20; write 0\.2 for 20 %"):
        SweepSpec(sparsities=parse_shares("20"))
    with pytest.raises(SpecError, match=r"ratio must be .*got 50\.0 \(50 % is 0\.5\)"):
        ExploreSpec(sensitivity_ratios=parse_shares("50"))
    with pytest.raises(SpecError, match=r"max_share must be .*\(80 % is 0\.8\)"):
        PruneSpec(max_share=80.0)
    with pytest.raises(SpecError, match="got 120 %; write"):
        OPTIONS["prune.sparsity"].read("120 %")


@pytest.mark.parametrize("typed", ["abc", "%", "2 0 %", "1e-1 %", "nan", "inf %"])
def test_what_is_no_number_is_refused_as_it_was_typed(typed: str) -> None:
    with pytest.raises(SpecError, match="sparsity must be in"):
        OPTIONS["prune.sparsity"].read(typed)
    with pytest.raises(SpecError):
        SweepSpec(sparsities=OPTIONS["sweep.sparsities"].read(typed))
