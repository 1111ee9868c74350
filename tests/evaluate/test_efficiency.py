from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from core.errors import ArtifactError
from core.evaluate.efficiency import measure, weights_bytes
from core.files import read_json, write_json
from core.graph.discover import discover
from core.plan.cost import cost
from core.results.efficiency import EFFICIENCY, keep_efficiency, read_efficiency
from core.surgery.operate import operate
from tests.handmade import tiny
from tests.pruneviz.samples import efficiency


def test_models_take_turns_after_a_warm_up() -> None:
    models = {"dense": tiny(), "pruned": tiny(intermediate_size=8)}
    calls: list[tuple[str, tuple[int, int], bool]] = []
    for name, model in models.items():

        def note(module: Any, args: Any, kwargs: Any, name: str = name) -> None:
            calls.append((name, tuple(kwargs["input_ids"].shape), kwargs.get("past_key_values") is not None))

        model.register_forward_pre_hook(note, with_kwargs=True)
    told: list[tuple[int, int]] = []
    measured = measure(
        models,
        prompt_tokens=16,
        new_tokens=2,
        repeats=3,
        batch_sizes=(1, 2),
        on_progress=lambda done, total: told.append((done, total)),
    )
    turns = {size: [((size, 16), False), ((size, 1), True), ((size, 1), True)] for size in (1, 2)}
    assert calls == [
        (name, *call) for turn in turns.values() for _ in range(4) for name in models for call in turn
    ]
    assert told == [(done, 8) for done in range(1, 9)]
    assert [timing.batch for timing in measured["dense"].timings] == [1, 2]
    assert measured["dense"].params > measured["pruned"].params
    assert measured["dense"].weights_gib > measured["pruned"].weights_gib


def test_the_numbers_belong_together() -> None:
    model = tiny()
    measured = measure({"model": model}, prompt_tokens=8, new_tokens=2, repeats=2, batch_sizes=(1, 3))[
        "model"
    ]
    for timing in measured.timings:
        assert timing.decode_tokens_per_second == pytest.approx(1000 * timing.batch / timing.decode_ms)
        assert timing.prefill_tokens_per_second == pytest.approx(8000 * timing.batch / timing.prefill_ms)
        assert min(timing.prefill_ms, timing.decode_ms) > 0
        assert min(timing.prefill_spread_ms, timing.decode_spread_ms) >= 0
        assert (timing.repeats, timing.prompt_tokens, timing.new_tokens) == (2, 8, 2)
    assert measured.latency_ms == measured.timings[0].prefill_ms
    assert measured.tokens_per_second == measured.timings[0].decode_tokens_per_second
    assert measured.memory_gib == measured.weights_gib == weights_bytes(model) / 2**30


def test_the_cache_is_weighed_and_equals_the_count() -> None:
    model = tiny(heads=4, kv_heads=2)
    graph = discover(model, name="tiny")
    plan = {"L00.query_head": (0, 1, 3), "L01.query_head": (1,)}  # a key-value head goes with its last query
    for removed in ({}, plan):
        operate(model, graph, removed)
        measured = measure({"model": model}, prompt_tokens=8, new_tokens=1, repeats=1)["model"]
        counted = 2 * cost(graph, removed).kv_bytes_per_token
        assert (measured.kv_bytes_per_token, measured.kv_bits) == (counted, 32)


def test_counted_macs_are_what_the_matrices_do() -> None:
    """Multiply-accumulates counted through the graph = those PyTorch counts, attention products aside."""
    model = tiny()
    graph = discover(model, name="tiny")
    plan = {"L00.query_head": (0, 1), "L00.ffn_channel": (0, 5), "L01.ffn_channel": (1, 2, 3)}
    for removed in ({}, plan):
        operate(model, graph, removed)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.arange(10)[None], use_cache=False)
        products = sum(n for op, n in counter.get_flop_counts()["Global"].items() if op is torch.ops.aten.mm)
        assert products == 2 * 10 * cost(graph, removed).macs_per_token


def test_tied_weights_count_once() -> None:
    tied, untied = tiny(tie_word_embeddings=True), tiny()
    assert weights_bytes(untied) - weights_bytes(tied) == 96 * 32 * 4


def test_a_short_context_is_respected() -> None:
    model = tiny(max_position_embeddings=16)
    lengths: list[int] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    measure({"model": model}, prompt_tokens=64, new_tokens=4, repeats=1)
    assert max(lengths) == 12


def test_the_median_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.evaluate import efficiency as module

    seconds = iter([(9.0, 9.0), (1.0, 4.0), (5.0, 8.0), (2.0, 6.0)])
    monkeypatch.setattr(module, "_round", lambda *_: module._Round(*next(seconds)))
    (measured,) = measure({"model": tiny()}, new_tokens=2, repeats=3, batch_sizes=(1,))["model"].timings
    assert (measured.prefill_ms, measured.prefill_spread_ms) == (2000.0, 4000.0)
    assert (measured.decode_ms, measured.decode_spread_ms) == (3000.0, 2000.0)
    assert measured.prefill.rounds_ms == (1000.0, 5000.0, 2000.0), "the one to warm up is none"
    assert measured.decode.rounds_ms == (2000.0, 4000.0, 3000.0)


def test_what_was_measured_is_read_back_and_so_is_what_older_runs_wrote(tmp_path: Path) -> None:
    measured = measure({"dense": tiny(), "pruned": tiny(intermediate_size=8)}, repeats=3, batch_sizes=(1, 2))
    keep_efficiency(tmp_path, {"dense": measured["dense"]})
    keep_efficiency(tmp_path, {"pruned": measured["pruned"]})
    assert read_efficiency(tmp_path) == measured
    raw = read_json(tmp_path / EFFICIENCY)
    for record in raw.values():
        for timing in record["timings"]:
            del timing["prefill_rounds_ms"], timing["decode_rounds_ms"]
    write_json(tmp_path / EFFICIENCY, raw)
    older = read_efficiency(tmp_path)["dense"]
    assert older.timed("latency_ms").rounds_ms == () and older.latency_ms == measured["dense"].latency_ms
    assert older.error("latency_ms") == measured["dense"].timings[0].prefill_spread_ms / 2
    for broken in ("{", '{"dense": {"params": 3}}', '{"dense": 3}', "[]"):
        (tmp_path / EFFICIENCY).write_text(broken)
        with pytest.raises(ArtifactError, match="damaged"):
            read_efficiency(tmp_path)
    assert read_efficiency(tmp_path / "nothing") == {}


def test_the_spread_of_a_speed_is_as_large_a_share_as_that_of_the_time() -> None:
    measured = efficiency([400.0, 380.0, 420.0], [10.0, 9.0, 11.0])
    assert (measured.tokens_per_second, measured.tokens_per_second_spread) == (100.0, pytest.approx(20.0))
    assert (measured.error("tokens_per_second"), measured.error("latency_ms")) == (pytest.approx(10.0), 20.0)


@pytest.mark.gpu
def test_the_peak_is_measured_on_cuda() -> None:
    measured = measure({"model": tiny().to("cuda", torch.bfloat16)})["model"]
    assert measured.memory_gib > measured.weights_gib
