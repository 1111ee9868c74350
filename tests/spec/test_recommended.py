"""What is recommended where nothing else is said."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from core.criteria import CRITERIA
from core.criteria.registry import check_scopes
from core.methods import criteria_of
from core.results.sweep import planned
from core.runs.command_line import command_line
from core.spec.choices import RECONSTRUCTIONS, SCOPES
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.recommended import BEST, FORWARD, RECOMMENDED, RECOMMENDED_FOR, USUAL, Recipe
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from core.spec.texts import MIXED

MEASURED = (Path(__file__).resolve().parents[2] / "docs" / "measured.md").read_text(encoding="utf-8")
OPEN = Recipe(RECOMMENDED, RECOMMENDED, RECOMMENDED)


def right_of_the_half_that_chooses() -> dict[tuple[str, str], float]:
    """Text and recipe -> right answers in per cent, of the docs' table of what keeps more."""
    table = MEASURED.split("### What keeps more of it")[1].split("\n\n")
    cells = ([cell.strip() for cell in line.split("|")] for part in table for line in part.splitlines())
    rows = [row[1:-1] for row in cells if len(row) == 9 and re.fullmatch(r"[\d.]+", row[4])]
    return {(row[0], row[1]): float(row[3]) for row in rows}


def test_what_is_recommended_is_the_best_that_was_measured() -> None:
    assert OPEN.settled() == (BEST, "global", "bias")
    right = right_of_the_half_that_chooses()
    dense = right.pop(("", "dense"))
    assert len(right) > 12 and max(right.values()) < dense
    assert max(right, key=right.__getitem__) == ("Factbook and speeches", f"`{BEST}`, `global`, biases")
    assert RunSpec().calibration.name == MIXED and RunSpec().calibration.length == 256


def test_of_what_al_am_ranks_the_one_without_gradients_is_the_best() -> None:
    table = MEASURED.split("## Without training, from one text to another")[1].split("## What the default")[0]
    rows = re.findall(r"^\| `(\w+)` \| `al_am` \| ([\w ]+) \| ([\d.]+) \(([\d.]+)\)", table, re.MULTILINE)
    for refit in ("nothing", "biases"):
        found = {name: (float(first), float(second)) for name, how, first, second in rows if how == refit}
        assert len(found) == 3 and all(found[FORWARD] <= both for both in found.values()), refit


@pytest.mark.parametrize(
    ("asked", "unseen", "settled"),
    [
        (PruneSpec(), False, ("taylor_second", "global", "bias")),
        (PruneSpec(), True, ("taylor_second", "global", "none")),
        (PruneSpec(without_dependency=True), False, ("taylor_first", "local", "none")),
        (PruneSpec(uniform=True), False, ("taylor_second", "global", "none")),
        (PruneSpec(uniform_heads=True), False, ("taylor_second", "global", "none")),
        (PruneSpec(scope="local"), False, ("taylor_second", "local", "bias")),
        (PruneSpec(scope="al_am"), False, ("ifv", "al_am", "bias")),
        (PruneSpec("taylor_second"), False, ("taylor_second", "local", "none")),  # LLM-Pruner's own
        (PruneSpec("wanda"), False, ("wanda", "local", "none")),
        (PruneSpec("wifv"), False, ("wifv", "al_am", "bias")),
        (PruneSpec("wifv", reconstruct="none"), False, ("wifv", "al_am", "none")),
        (PruneSpec("alternate_layers"), False, ("alternate_layers", "raw", "none")),
        (PruneSpec("manual", units={"L00.query_head": (0,)}), False, ("manual", "local", "none")),
        (PruneSpec("nuteprune"), True, ("nuteprune", "local", "none")),
    ],
)
def test_what_is_left_open_is_settled(asked: PruneSpec, unseen: bool, settled: tuple[str, str, str]) -> None:
    found = asked.settled(unseen=unseen)
    assert (found.method, found.scope, found.reconstruct) == settled
    assert found.settled() == found and not found.because()
    if settled[1] in SCOPES and found.method in CRITERIA.names():
        check_scopes((found.method,), (found.scope,))


def test_every_method_has_a_scope_and_a_refit_that_exist() -> None:
    for name, (scope, refit) in {**RECOMMENDED_FOR, "l2": USUAL}.items():
        assert name in CRITERIA.names() and scope in SCOPES and refit in RECONSTRUCTIONS


def test_what_was_recommended_is_said_with_its_reason() -> None:
    best = "taylor_second, scope global, refit bias, because "
    assert RunSpec().settled().extra["recommended"].startswith(best)
    assert "docs/measured.md" in PruneSpec().because()
    assert PruneSpec().because(unseen=True).startswith("taylor_second, scope global, no refit, because ")
    assert "by itself" in PruneSpec(without_dependency=True).because()
    assert "scope al_am can rank by" in PruneSpec(scope="al_am").because()
    for other in (PruneSpec(uniform=True), PruneSpec(scope="local"), PruneSpec(reconstruct="none")):
        assert "best criterion" in other.because() and "biases" not in other.because()
    lent = replace(RunSpec(), model=ModelSpec(device_map="auto")).settled()
    assert lent.prune == PruneSpec("ifv", scope="al_am", reconstruct="bias")
    assert "reads gradients" in lent.extra["recommended"]
    paper = ", because that is how the paper of wifv has it"
    assert PruneSpec("wifv").because() == f"scope al_am, refit bias{paper}"
    for chosen in (PruneSpec("wifv", reconstruct="least_squares"), PruneSpec("wifv", uniform=True)):
        assert chosen.because() == f"scope al_am{paper}"
    for refit in ("least_squares", "recommended"):
        assert not PruneSpec("wanda", reconstruct=refit).because(), "no paper has what somebody chose"
    assert not PruneSpec("l2").because() and not PruneSpec("ifv", 0.2, "local", reconstruct="none").because()


def test_a_command_spells_out_what_is_recommended() -> None:
    said = "prune demo --method taylor_second --sparsity 0.2 --scope global --reconstruct bias"
    assert command_line(RunSpec()).endswith(said)
    assert command_line(RunSpec(prune=PruneSpec("l2"))).endswith("prune demo --method l2 --sparsity 0.2")


def test_a_sweep_has_each_of_its_points_once() -> None:
    sweep = SweepSpec(
        (RECOMMENDED, "taylor_second", "l2"), (0.2,), (RECOMMENDED, "local"), (RECOMMENDED, "none")
    )
    points = planned(RunSpec(goal="sweep", sweep=sweep))
    assert [(point.method, point.scope, point.reconstruct) for point in points] == [
        ("taylor_second", "global", "bias"),
        ("taylor_second", "global", "none"),
        ("taylor_second", "local", "bias"),
        ("taylor_second", "local", "none"),
        ("l2", "local", "none"),
    ]
    spec = RunSpec(goal="sweep", sweep=sweep)
    lent = RunSpec(goal="sweep", model=ModelSpec(device_map="auto"), sweep=SweepSpec((RECOMMENDED, "ifv")))
    assert criteria_of(lent) == ["ifv"]
    assert lent.settled().extra["recommended"].startswith("ifv, scope al_am")
    assert spec.settled().settled() == spec.settled()
    assert {(point.method, point.scope) for point in planned(lent)} == {("ifv", "al_am")}
