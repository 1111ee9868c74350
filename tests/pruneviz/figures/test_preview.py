from __future__ import annotations

import platform
import time
from dataclasses import replace
from pathlib import Path

import pytest

from core.memory.forecast import Place, forecast
from core.memory.shapes import shapes_of
from core.methods import with_preset
from core.plan.allocation import allocate
from core.plan.cost import cost
from core.plan.latency import Machine, Timings, fingerprint
from core.runs.gpus import Gpu
from core.runs.timings import keep_timings
from core.spec.calibration import DataSpec
from core.spec.cluster import ClusterSpec
from core.spec.efforts import with_effort
from core.spec.evaluate import EvalSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.recover import recover_preset
from core.spec.run import RunSpec
from pruneviz.data import room
from pruneviz.figures.preview import preview_html, preview_info, warnings_for
from tests.graph.families import graph_of
from tests.pruneviz.samples import FFN, HEADS, graph


def test_the_preview_is_the_plan():
    spec = RunSpec(prune=PruneSpec(sparsity=0.4))
    plan = allocate(graph(), None, sparsity=0.4, kinds=spec.prune.kinds)
    info = preview_info(spec, graph(), None)
    assert info.sparsity == plan.sparsity == pytest.approx(0.4, abs=0.1)
    assert info.sparsity_total == plan.sparsity_total
    assert (info.lines[0].before, info.lines[0].after) == (plan.before.params, plan.after.params)
    assert not info.exact and "--sparsity 0.4" in info.command


def test_the_preview_of_units_chosen_by_hand_is_exact():
    units = {"L00.ffn_channel": (0, 1), "L01.query_head": (3,)}
    info = preview_info(RunSpec(prune=PruneSpec("manual", units=units)), graph(), None)
    assert (info.lines[0].before, info.lines[0].after) == tuple(
        cost(graph(), removed).params for removed in ({}, units)
    )
    assert info.exact and not info.warnings and not info.problem
    assert info.command == ("python -m core prune demo --units L00.ffn_channel=0-1 --units L01.query_head=3")
    every = PruneSpec("manual", units={"L00.ffn_channel": tuple(range(FFN))})
    assert "at least one must stay" in preview_info(RunSpec(prune=every), graph(), None).problem


def test_the_preview_of_a_budget_is_the_plan_that_meets_it():
    spec = RunSpec(prune=PruneSpec(target="params=-20%,size=-30%@f32"))
    info = preview_info(spec, graph(), None)
    assert "--target params=-20%,size=-30%@f32" in info.command and "--sparsity" not in info.command
    assert [answer.partition("=")[0] for answer in info.answers] == ["params", "size"]
    assert all(f"<h3>Leaves {answer}</h3>" in preview_html(info) for answer in info.answers)
    params, *_, size = info.lines
    assert size.title == "Weights at f32" and size.after == 4 * params.after <= 0.7 * size.before
    out = preview_info(RunSpec(prune=PruneSpec(target="params=1")), graph(), None)
    assert "out of reach: the least is params=" in out.problem
    assert not warnings_for(RunSpec(prune=PruneSpec(target="params=-20%", sparsity=0.9)))


def test_the_preview_of_whole_blocks_counts_them_and_says_what_is_measured():
    spec = RunSpec(prune=PruneSpec("wanda", 0.0, "local", drop="layer=1"))
    info, traced = preview_info(spec, graph_of("llama"), None), graph_of("llama")
    assert "--drop layer=1" in info.command and not info.exact and not info.warnings
    assert info.lines[0].after == cost(traced, {"L00.layer": (0,)}).params
    assert "which blocks go is measured in the run" in preview_html(info)
    more = preview_info(RunSpec(prune=PruneSpec(drop="layer=2")), traced, None)
    assert "at most 1 can go" in more.problem


def test_the_preview_of_a_search_says_what_is_measured_in_the_run():
    info = preview_info(RunSpec(prune=PruneSpec(sparsity=0.4, scope="searched")), graph(), None)
    assert info.sparsity == pytest.approx(0.4, abs=0.1) and not info.exact and not info.even
    assert "how much each layer gives is measured in the run" in preview_html(info)


def test_widths_are_dense_narrowest_widest():
    info = preview_info(RunSpec(prune=PruneSpec(sparsity=0.5, layers="1:2")), graph(), None)
    dense, low, high = info.widths["ffn"]
    assert (dense, high) == (FFN, FFN) and low < FFN
    assert info.widths["query_heads"][0] == HEADS


def test_nothing_known_of_the_model_still_gives_the_command():
    info = preview_info(RunSpec(), None, None)
    assert info.sparsity is None and info.command.startswith("python -m core prune demo")
    assert "Discover" in preview_html(info)


def test_what_cannot_be_planned_is_said():
    info = preview_info(RunSpec(prune=PruneSpec(layers="1:9")), graph(), None)
    assert "layers 1:9" in info.problem and "“Layers” 1:9" in preview_html(info)


def test_warnings():
    same = RunSpec(calibration=DataSpec("/a.txt"), evaluate=EvalSpec(text="/a.txt"))
    assert any("same text" in text for text in warnings_for(same))
    assert warnings_for(RunSpec()) == []
    (idle,) = warnings_for(RunSpec(prune=PruneSpec(recovery_samples=64)))
    assert "counts for nothing without --reconstruct pre_pruning" in idle
    assert warnings_for(RunSpec(prune=PruneSpec(sparsity=0.6)))
    assert warnings_for(RunSpec(prune=PruneSpec(sparsity=0.0)))


def test_a_training_is_previewed_and_a_short_one_warned_of():
    spec = with_preset(RunSpec(), "nuteprune", "demo", 3)
    info = preview_info(spec, graph(), None)
    assert info.learned and info.sparsity == pytest.approx(0.2, abs=0.1)
    assert "how much each layer gives is learned" in preview_html(info)
    assert [text[:21] for text in info.warnings] == ["3 steps are too few t"]
    few = replace(spec, calibration=DataSpec(samples=2))
    assert any("reads 4 windows, but there are only 2" in text for text in warnings_for(few))
    assert warnings_for(with_preset(RunSpec(), "nuteprune", "demo", None)) == []


def test_a_target_out_of_reach_is_said_of_a_training():
    spec = with_preset(RunSpec(prune=PruneSpec(sparsity=0.95)), "nuteprune", "demo", None)
    assert "95" in preview_info(spec, graph(), None).problem


def test_where_the_result_will_run_is_said_before_anything_is_cut():
    config = {"model_type": "llama", "hidden_size": 16}
    units = {"L00.ffn_channel": (0, 1)}
    by_hand = preview_info(RunSpec(prune=PruneSpec("manual", units=units)), graph(), None, config)
    ways = {title: possible for title, possible, _ in by_hand.ways}
    assert ways["transformers"] and ways["vLLM"] and "not known yet" not in preview_html(by_hand)
    ragged = PruneSpec(sparsity=0.25, scope="local", kinds=("query_head",))
    info = preview_info(RunSpec(prune=ragged), graph(), None, config)
    assert ("vLLM", False) in [way[:2] for way in info.ways], "one head of four leaves them uneven"
    assert "Its attention takes" in preview_html(info) and "not known yet" in preview_html(info)
    alike = PruneSpec(sparsity=0.4, scope="local", uniform=True)
    even = preview_info(RunSpec(prune=alike), graph(), None, config).ways
    assert ("vLLM", True) in [way[:2] for way in even]
    assert not preview_info(RunSpec(), graph(), None).ways


def test_a_training_after_the_cut_is_said_with_its_length():
    taught = preview_info(with_effort(RunSpec(), "minutes"), None, None)
    said = "the dense model teaches all weights: 150 steps of 4 sequences of 128 tokens, from mixed"
    assert taught.training == said and f"Then {said}." in preview_html(taught)
    lora = preview_info(RunSpec(recover=recover_preset("paper")), None, None)
    assert lora.training.startswith("LoRA learns the next token: 2 passes over the text, in steps of 64")
    assert preview_info(RunSpec(), None, None).training == ""


def test_a_time_is_predicted_where_this_machine_was_timed_and_otherwise_said_to_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNEVIZ_STATE_DIR", str(tmp_path))
    spec = RunSpec(prune=PruneSpec(target="latency=-10%@1x64"))
    untimed = preview_info(spec, graph(), None)
    assert untimed.untimed and not untimed.problem and "was not timed yet" in preview_html(untimed)
    machine = Machine(platform.node(), "a processor", 2, "float32", "sdpa", "2")
    saves = {kind: ((1.0, 30.0),) for kind in ("ffn_channel", "query_head")}
    timings = Timings(fingerprint(graph()), "1x64", 1, machine, time.time(), 100.0, 1.0, saves, {})
    keep_timings(timings)
    info = preview_info(spec, graph(), None)
    (line,) = (each for each in info.lines if each.title == "Time for reading a prompt of 64 tokens")
    assert line.before == 100.0 and 80 < line.after <= 90.0
    assert "a processor with 2 threads" in preview_html(info) and "just now" in info.timed
    far = preview_info(RunSpec(prune=PruneSpec(target="latency=1ms@1x64")), graph(), None)
    assert "the least is latency=" in far.problem
    keep_timings(replace(timings, machine=replace(machine, host="another")))
    assert preview_info(spec, graph(), None).timed == info.timed, "times of another host are no help"


def test_the_preview_says_what_the_run_will_hold_and_what_to_make_smaller() -> None:
    spec = RunSpec(prune=PruneSpec("wifv", sparsity=0.4))
    roomy, tight = (forecast(spec, shapes_of(graph()), Place("cpu", size)) for size in (2**40, 2**20))
    info = preview_info(spec, graph(), None, held=roomy)
    assert info.needs.startswith("Needs about 0.7 GiB of memory, 1024 GiB free; most while it ")
    assert info.needs in preview_html(info) and not any("not fit" in each for each in info.warnings)
    assert (
        "That will not fit: take --dtype bfloat16." in preview_info(spec, graph(), None, held=tight).warnings
    )
    assert preview_info(spec, graph(), None).needs == ""


def test_the_page_knows_where_a_run_will_compute_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = (Gpu(0, "A", 4.0, 24.0, None), Gpu(1, "B", 0.0, 80.0, None))
    monkeypatch.setattr(room, "gpus", lambda: cards)

    def place(device: str) -> tuple[str, int | None]:
        where = room.place_of(RunSpec(model=ModelSpec(device=device)))
        return where.device, where.free and where.free // 2**30

    assert (place("auto"), place("cuda:1")) == (("cuda:0", 20), ("cuda:1", 80))
    assert place("cpu")[0] == "cpu"
    monkeypatch.setattr(room, "gpus", lambda: ())
    assert place("auto")[0] == "cpu"
    away = RunSpec(cluster=ClusterSpec("ray", "10.0.0.1:6379"))
    assert room.place_of(away).free is None
    assert room.foreseen(RunSpec(model=ModelSpec(device_map="auto")), graph()) is None
