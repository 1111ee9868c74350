"""What is recommended where nothing else is said."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from core.criteria import CRITERIA
from core.criteria.registry import check_scopes
from core.results.sweep import planned
from core.runs.command_line import command_line
from core.spec.choices import RECONSTRUCTIONS, SCOPES
from core.spec.prune import PruneSpec
from core.spec.recommended import RECOMMENDED, RECOMMENDED_FOR, USUAL, Recipe
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec

MEASURED = (Path(__file__).resolve().parents[2] / "docs" / "measured.md").read_text(encoding="utf-8")
OPEN = Recipe(RECOMMENDED, RECOMMENDED, RECOMMENDED)


def left_at_20_percent(*cells: str) -> list[float]:
    """Perplexities of both texts in the row of the docs that begins with these cells."""
    row = next(line for line in MEASURED.splitlines() if line.startswith("| " + " | ".join(cells) + " |"))
    numbers = re.findall(r"[\d.,]+(?:e\d)?", row.split("|")[len(cells) + 1])
    return [float(number.replace(",", "")) for number in numbers]


def test_what_is_recommended_is_the_best_that_was_measured() -> None:
    best = OPEN.settled()
    assert best == ("ifv", "al_am", "bias")
    chosen = left_at_20_percent("`ifv`", "`al_am`", "biases")
    rows = re.findall(
        r"^\| `(\w+)`[^|]* \|(?: `(\w+)` \| (\w+[\w ]*) \|)? [\d.,]+ \(", MEASURED, re.MULTILINE
    )
    others = [row for row in rows if row[1:] and row[1] and "squares" not in row[2] and row[2] != "biases"]
    assert ("ifv", "al_am", "nothing") in others and ("wifn", "al_am", "nothing") in others
    for name, scope, refit in others:
        there = left_at_20_percent(f"`{name}`", f"`{scope}`", refit)
        assert all(ours < theirs for ours, theirs in zip(chosen, there, strict=True)), (name, scope)
    refitted = left_at_20_percent("`ifv`", "`al_am`", "least squares")
    assert all(ours < 1.1 * theirs for ours, theirs in zip(chosen, refitted, strict=True))  # "come close"


@pytest.mark.parametrize(
    ("asked", "unseen", "settled"),
    [
        (PruneSpec(), False, ("ifv", "al_am", "bias")),
        (PruneSpec(), True, ("taylor_first", "local", "none")),
        (PruneSpec(without_dependency=True), False, ("taylor_first", "local", "none")),
        (PruneSpec(uniform=True), False, ("ifv", "al_am", "none")),
        (PruneSpec(uniform_heads=True), False, ("ifv", "al_am", "none")),
        (PruneSpec(scope="global"), False, ("ifv", "global", "bias")),
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
    assert RunSpec().settled().extra["recommended"].startswith("ifv, scope al_am, refit bias, because ")
    assert "docs/measured.md" in PruneSpec().because()
    experts = PruneSpec().because(unseen=True)
    assert experts.startswith("taylor_first, scope local, no refit, because ifv has to see")
    assert "stack of experts" in experts
    assert "by itself" in PruneSpec(without_dependency=True).because()
    for other in (PruneSpec(uniform=True), PruneSpec(scope="local"), PruneSpec(reconstruct="none")):
        assert "best criterion" in other.because() and "biases" not in other.because()
    paper = ", because that is how the paper of wifv has it"
    assert PruneSpec("wifv").because() == f"scope al_am, refit bias{paper}"
    for chosen in (PruneSpec("wifv", reconstruct="least_squares"), PruneSpec("wifv", uniform=True)):
        assert chosen.because() == f"scope al_am{paper}"
    for refit in ("least_squares", "recommended"):
        assert not PruneSpec("wanda", reconstruct=refit).because(), "no paper has what somebody chose"
    assert not PruneSpec("l2").because() and not PruneSpec("ifv", 0.2, "local", reconstruct="none").because()


def test_a_command_spells_out_what_is_recommended() -> None:
    said = "prune demo --method ifv --sparsity 0.2 --scope al_am --reconstruct bias"
    assert command_line(RunSpec()).endswith(said)
    assert command_line(RunSpec(prune=PruneSpec("l2"))).endswith("prune demo --method l2 --sparsity 0.2")


def test_a_sweep_has_each_of_its_points_once() -> None:
    sweep = SweepSpec((RECOMMENDED, "ifv", "l2"), (0.2,), (RECOMMENDED, "local"), (RECOMMENDED, "none"))
    points = planned(RunSpec(goal="sweep", sweep=sweep))
    assert [(point.method, point.scope, point.reconstruct) for point in points] == [
        ("ifv", "al_am", "bias"),
        ("ifv", "al_am", "none"),
        ("ifv", "local", "bias"),
        ("ifv", "local", "none"),
        ("l2", "local", "none"),
    ]
    spec = RunSpec(goal="sweep", sweep=replace(sweep, methods=(RECOMMENDED, "taylor_first")))
    assert spec.settled(unseen=True).sweep.methods == ("taylor_first",)
