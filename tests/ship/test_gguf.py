"""A real llama.cpp computes with a GGUF file what torch computes with the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest

from core.errors import ModelError, SpecError
from core.plan.records import PruningPlan, missing_biases
from core.ship import gguf as route
from core.ship.gguf_layout import Layout, layout
from core.ship.records import Subject
from core.ship.slots import lay_out
from core.spec.export import ExportSpec
from core.surgery.operate import operate
from tests.conftest import word_tokenizer
from tests.handmade import graph_of, tiny
from tests.ship.llama import Llama
from tests.ship.made import RAGGED, divergence, fallen_behind, parcel, prompt, written

_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
ROPES: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "yarn": _YARN,
    "yarn with its own numbers": {**_YARN, "attention_factor": 1.3, "beta_fast": 16.0, "beta_slow": 2.0},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "longrope": {
        "rope_type": "longrope", "factor": 4.0, "short_factor": [1.0, 1.1, 1.2, 1.5],
        "long_factor": [1.0, 2.0, 3.0, 4.0], "original_max_position_embeddings": 32,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "changes"),
    [("llama", {}), ("mistral", {}), ("qwen2", {}), ("qwen3", {"tie_word_embeddings": True})],
)
def test_uneven_layers_give_the_same_tokens(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model, path = written(tmp_path, family, RAGGED, **changes)
    assert divergence(model, path, 16) < 2e-5
    tokens = prompt(model, 8)
    behind = fallen_behind(model, tokens, Llama(path).greedy(tokens, 24))
    # 16 bits may decide between two tokens that are as good as equal; a wrong row is off by whole units.
    assert behind.max() < 1e-3 and (behind == 0).sum() >= 23


def test_attention_and_ffns_that_are_gone() -> None:
    model = tiny("llama")
    graph, config = graph_of(model), model.config.to_dict()

    def laid(*groups: str) -> Layout:
        gone = {group: tuple(range(graph.group(group).units)) for group in groups}
        return layout(Subject(graph, PruningPlan(gone), config))

    left = laid("L01.query_head", "L01.ffn_channel")
    assert left.ffn == (32, 32), "an FFN that is gone keeps channels of zeros"
    assert not left.slots[1].queries and not left.slots[1].keys and left.slots[0].queries
    with pytest.raises(SpecError, match="layer 0 has no attention left"):
        laid("L00.query_head")


@pytest.mark.parametrize("name", ROPES)
def test_positions_are_turned_alike_also_beyond_the_first_length(name: str, tmp_path: Path) -> None:
    model, path = written(tmp_path, "llama", RAGGED, rope_parameters={"rope_theta": 1e4, **ROPES[name]})
    assert divergence(model, path, 100) < 2e-5


@pytest.mark.parametrize(
    ("changes", "wide"),
    [
        ({}, 32),
        ({"pad": "none"}, 29),
        ({"pad": "64", "hidden_size": 64}, 64),
        ({"pad": "64"}, 32),  # not beyond what the dense model has
        ({"type": "q8_0"}, 32),
        ({"type": "f32"}, 32),
    ],
)
def test_hidden_channels_of_zeros_change_nothing(changes: dict[str, Any], wide: int, tmp_path: Path) -> None:
    removed = {**RAGGED, "residual_channel": (0, 5, 7)}
    kind = changes.get("type", "f16")
    model, path = written(tmp_path, "llama", removed, **changes)
    assert divergence(model, path, 16) < (5e-3 if kind == "q8_0" else 2e-5)
    tensors = {each.name: each for each in gguf.GGUFReader(path).tensors}
    assert tensors["blk.0.ffn_down.weight"].shape.tolist()[1] == wide
    assert tensors["blk.0.ffn_down.weight"].tensor_type.name.lower() == kind


@pytest.mark.parametrize("sparing", ["params", "cache"])
def test_heads_that_are_shared_unevenly_are_laid_out_anew(sparing: str, tmp_path: Path) -> None:
    removed = {"L00.query_head": (2, 4, 6), "L01.query_head": (1, 2, 6, 7)}
    model, path = written(tmp_path, "llama", removed, heads=8, kv_heads=4, uneven_heads=sparing)
    assert divergence(model, path, 16) < 2e-5


def test_the_cheapest_layout_is_taken() -> None:
    assert lay_out([0, 0, 1, 1]).queries == (0, 1, 2, 3)
    shared = [0] * 5 + [1, 2]
    slim, small = lay_out(shared), lay_out(shared, "cache")
    assert (slim.keys, slim.queries) == ((0, 0, 0, 0, 0, 1, 2), tuple(range(7))) and slim.extra == (0, 4)
    assert small.keys == (0, 1, 2) and small.extra == (8, 0) and lay_out([]).keys == ()


def test_biases_that_repair_a_cut_are_in_the_file(tmp_path: Path) -> None:
    from core.models.saved import save
    from core.ship.records import Parcel

    model = tiny("llama")
    graph = graph_of(model)
    biases = missing_biases(graph, RAGGED)
    model = operate(model, graph, RAGGED, biases)
    for name in biases:
        model.get_parameter(name).data.normal_(std=0.3)
    plan = PruningPlan(RAGGED, "tiny", biases=biases)
    save(model, None, graph, plan, tmp_path / "model", facts={})
    (tmp_path / "out").mkdir()
    subject = Subject(graph, plan, model.config.to_dict())
    route.write(
        Parcel(subject, tmp_path / "model", tmp_path / "out", ExportSpec(to="gguf"), False, print, print)
    )
    assert biases and divergence(model, next((tmp_path / "out").iterdir()), 16) < 2e-5


@pytest.mark.parametrize(
    ("family", "changes", "why"),
    [
        ("qwen3", {}, "ties the output to the embedding"),
        ("llama", {"hidden_act": "gelu"}, "gated by gelu"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "'dynamic'",
        ),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused(family: str, changes: dict[str, Any], why: str) -> None:
    model = tiny(family, **changes)
    subject = Subject(graph_of(model), PruningPlan(RAGGED), model.config.to_dict())
    said = route.verdict(subject)
    assert not said.possible and why in said.reason
    with pytest.raises(SpecError, match="not in gpt2"):
        layout(Subject(graph_of(model), PruningPlan(RAGGED), {"model_type": "gpt2"}))


def test_a_window_of_attention_is_the_context_of_the_file(tmp_path: Path) -> None:
    _, given = parcel(tmp_path, "mistral", RAGGED, sliding_window=64)
    notes = route.write(given).notes
    assert any("reaches back 64 tokens" in note for note in notes)
    fields = gguf.GGUFReader(next(given.out.iterdir())).fields
    assert fields["deci.context_length"].contents() == 64
    assert fields["deci.feed_forward_length"].contents() == [32, 32]


def test_a_tokenizer_that_is_not_there_is_refused_at_once() -> None:
    with pytest.raises(ModelError, match="There is no file nowhere"):
        route.check_request(subject_of_tiny(), Path(), ExportSpec(to="gguf", tokenizer="nowhere.gguf"))


def test_a_tokenizer_that_cannot_be_told_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    word_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(SpecError, match=r"The model's tokenizer is of type WordLevel.*--tokenizer FILE"):
        route.check_request(subject_of_tiny(), tmp_path, ExportSpec(to="gguf"))


def subject_of_tiny() -> Subject:
    model = tiny("llama")
    return Subject(graph_of(model), PruningPlan(RAGGED), model.config.to_dict())


@pytest.mark.parametrize(
    "name", ["L01.attention_block", "L01.ffn_block", "L00.ffn_block", "L01.layer", "L00.layer"]
)
def test_whole_blocks_that_are_gone(name: str, tmp_path: Path) -> None:
    model, path = written(tmp_path, "llama", {name: (0,), "L02.query_head": (1,)}, num_hidden_layers=3)
    assert divergence(model, path, 24) < 1e-5


def test_attention_gone_in_the_first_layer_is_refused(tmp_path: Path) -> None:
    _, given = parcel(tmp_path, "llama", {"L00.attention_block": (0,)})
    told = route.verdict(given.subject)
    assert not told.possible and told.reason.startswith("layer 0 has no attention left")
