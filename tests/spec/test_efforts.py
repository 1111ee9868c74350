"""What a run may spend on what is left: three ways, said once, on the command line and the form."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest

from core.criteria.registry import check_scopes
from core.errors import UnknownNameError
from core.runs.request import ask_to_prune
from core.spec.efforts import EFFORTS, SAYS, effort_of, with_effort
from core.spec.evaluate import EvalSpec
from core.spec.fields import OPTIONS
from core.spec.prune import PruneSpec
from core.spec.recommended import RECOMMENDED
from core.spec.recover import PRESETS, RecoverSpec
from core.spec.run import RunSpec


@pytest.mark.parametrize("name", EFFORTS)
def test_an_effort_is_told_from_what_it_asks_for(name: str) -> None:
    spec = with_effort(RunSpec(), name)
    assert effort_of(spec) == name
    recipe = EFFORTS[name].recipe
    assert spec.recover == (PRESETS[recipe] if recipe else RecoverSpec())
    assert with_effort(with_effort(RunSpec(), "hour"), name) == spec  # nothing of the one before stays
    assert set(EFFORTS[name].changes) <= set(SAYS) <= set(OPTIONS)


@pytest.mark.parametrize("name", ["minutes", "hour"])
@pytest.mark.parametrize("method", ["taylor_second", "l2", "wifv", RECOMMENDED])
def test_another_method_goes_with_every_effort(name: str, method: str) -> None:
    settled = ask_to_prune(None, {"prune.method": method}, preset=name).settled().prune
    alone = PruneSpec(method).settled()
    assert (settled.method, settled.scope) == (alone.method, alone.scope)
    assert settled.reconstruct == "least_squares"
    if settled.scope == "al_am":
        check_scopes([settled.method], [settled.scope])


def test_the_efforts_that_train_cut_as_is_recommended_and_refit_more() -> None:
    usual = RunSpec().settled().prune
    for name in ("minutes", "hour"):
        prune = with_effort(RunSpec(), name).settled().prune
        assert prune == replace(usual, reconstruct="least_squares")


def test_nothing_said_is_what_is_recommended() -> None:
    assert next(iter(EFFORTS)) == RECOMMENDED and with_effort(RunSpec(), RECOMMENDED) == RunSpec()


def test_target_texts_and_name_are_nobody_s_effort() -> None:
    spec = RunSpec(
        name="mine", prune=PruneSpec(sparsity=0.4, kinds=("ffn_channel",)), evaluate=EvalSpec("text.txt"),
        recover=RecoverSpec(data="alpaca"),
    )  # fmt: skip
    taught = with_effort(spec, "minutes")
    assert (taught.name, taught.evaluate, taught.prune.sparsity) == ("mine", spec.evaluate, 0.4)
    assert taught.recover.data == "alpaca" and effort_of(taught) == "minutes"


@pytest.mark.parametrize(
    "change",
    [
        {"prune": PruneSpec("l2")},
        {"prune": PruneSpec(reconstruct="none")},
        {"recover": RecoverSpec("lora")},
        {"recover": replace(PRESETS["minutes"], steps=151)},
        {"recover": replace(PRESETS["minutes"], method="none")},
    ],
)
def test_what_differs_is_no_effort(change: dict[str, object]) -> None:
    assert effort_of(dataclasses.replace(with_effort(RunSpec(), "minutes"), **change)) is None


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'minutes'"):
        with_effort(RunSpec(), "minute")


@pytest.mark.parametrize("name", EFFORTS)
def test_units_chosen_by_hand_stay(name: str) -> None:
    chosen = RunSpec(prune=PruneSpec("manual", units={"L00.query_head": (3,)}))
    taught = with_effort(chosen, name)
    assert (taught.prune.method, taught.prune.units) == ("manual", chosen.prune.units)
    assert effort_of(taught) == name


def test_options_of_a_criterion_that_is_not_taken_are_no_effort() -> None:
    assert effort_of(RunSpec(prune=PruneSpec("l2", options={"p": 1.0}))) is None
