"""Chosen units: their sum, what follows, and why they may be no plan."""

from __future__ import annotations

from core.plan.cost import cost, saving
from pruneviz.figures.chosen import NO_WEIGHTS, chosen_html, chosen_info
from tests.pruneviz.samples import FFN, HEADS, graph


def test_the_sum_is_what_the_plan_saves_together():
    units = {"L00.query_head": (0, 1), "L01.ffn_channel": (3, 7)}
    info = chosen_info(graph(), "L00.query_head=0-1 L01.ffn_channel=3,7")
    assert (info.count, info.problem) == (4, "")
    assert info.saved.params == cost(graph(), {}).params - cost(graph(), units).params
    assert info.saved == saving(graph(), units) and info.saved.kv_bytes_per_token > 0
    assert info.follows == ("key-value head 0 of layer 0",)
    page = chosen_html(info)
    assert f"−{info.saved.params:,}" in page and "Goes along: key-value head 0 of layer 0." in page
    assert f"{100 * info.saved.params / info.dense.params:.2f} % of all" in page
    assert 'data-focus="L01.ffn_channel"' in page and "2 of 12: 3, 7" in page


def test_nothing_chosen_is_an_invitation():
    info = chosen_info(graph(), "")
    assert (info.count, info.problem, info.saved.params) == (0, "", 0)
    assert "Nothing is chosen yet" in chosen_html(info)


def test_a_group_that_would_lose_everything_is_named():
    info = chosen_info(graph(), f"L01.ffn_channel=0-{FFN - 1} L00.query_head=2")
    assert info.problem.startswith(
        "All units are chosen in Layer 1, FFN channels. One unit of every group must stay"
    )
    assert info.saved.params > 0 and info.sparsity is None
    heads = chosen_info(graph(), f"L00.query_head=0-{HEADS - 1}")
    assert heads.problem.startswith("All units are chosen in Layer 0, Query heads.")


def test_without_weights_the_sum_is_there_and_the_reason():
    info = chosen_info(graph(), "L00.query_head=2", weightless=True)
    assert info.problem == NO_WEIGHTS and info.saved.params > 0
    assert "There are no weights beside this config" in chosen_html(info)


def test_many_groups_are_summed_up_by_kind():
    text = " ".join(
        f"L{i:02d}.{kind}=1" for i in (0, 1) for kind in ("query_head", "kv_group", "ffn_channel")
    )
    few = chosen_info(graph(), text)
    assert len(few.chips) == 6
    import pruneviz.figures.chosen as module

    shown = module.SHOWN
    module.SHOWN = 5
    try:
        many = chosen_info(graph(), text)
    finally:
        module.SHOWN = shown
    assert [(chip.title, chip.text) for chip in many.chips] == [
        ("FFN channels", "2 units in 2 layers"),
        ("Key-value heads", "2 units in 2 layers"),
        ("Query heads", "2 units in 2 layers"),
    ]
    assert many.chips[0].drop == "L00.ffn_channel L01.ffn_channel" and not many.chips[0].focus


def test_what_is_not_of_this_model_is_said_and_left_out():
    info = chosen_info(graph(), "L55.query_head=1 L00.query_head=1")
    assert info.count == 1 and "no group L55.query_head" in chosen_html(info)
