"""The models that an engine holds, their cards, and giving them back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.engine.client import Engine
from tests.conftest import llama_config, random_model
from tests.engine.asking import PROMPT


def test_a_model_is_loaded_and_described(engine: Engine, tiny_llama_folder: Path) -> None:
    card = engine.load(str(tiny_llama_folder))
    wanted = {
        "name": "tiny-llama", "family": "llama", "architecture": "LlamaForCausalLM", "num_hidden_layers": 2,
        "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 8, "vocab_size": 128, "max_position_embeddings": 256, "tie_word_embeddings": True,
        "dtype": "float32", "device": "cpu", "chat_template": False, "pruned": False, "revision": None,
    }  # fmt: skip
    assert {key: card[key] for key in wanted} == wanted
    params = sum(parameter.numel() for parameter in random_model(llama_config()).parameters())
    assert card["params"] == params
    assert card["memory_gib"] == pytest.approx(4 * params / 2**30, rel=1e-2)
    assert len(card["weights_sha256"]) == 64
    assert engine.state() == {"started": True, "busy": False, "models": {"dense": card}}


def test_a_card_needs_no_weights(engine: Engine, endless: str) -> None:
    held = engine.state()["models"]
    card = engine.card(endless)
    assert (card["name"], card["params"]) == ("endless", engine.load(endless)["params"])
    assert "memory_gib" not in card and held != engine.state()["models"]


def test_models_are_given_back(engine: Engine, tiny_llama_folder: Path, endless: str) -> None:
    engine.load(endless)
    engine.load(str(tiny_llama_folder))
    assert [card["name"] for card in engine.state()["models"].values()] == ["tiny-llama"]
    engine.release()
    assert engine.state()["models"] == {}
    assert list(engine.generate(endless, PROMPT, max_new_tokens=1))[-1]["done"]


def test_a_dense_and_a_pruned_model_are_held_side_by_side(
    engine: Engine, tiny_llama_folder: Path, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    from core.models import saved
    from core.plan.cost import with_costs
    from core.plan.records import PruningPlan
    from core.surgery.operate import operate
    from tests.handmade import graph_of

    model = random_model(llama_config())
    graph = graph_of(model)
    for name, gone in (("one", (0, 1)), ("two", (2, 3, 4))):
        plan = with_costs(graph, PruningPlan({"L00.ffn_channel": gone}), list(graph.groups))
        cut = operate(random_model(llama_config()), graph, plan.removed)
        saved.save(cut, tiny_tokenizer, graph, plan, tmp_path / name, facts={})
    dense = engine.load(str(tiny_llama_folder))
    engine.load(str(tmp_path / "one"))
    pruned = engine.load(str(tmp_path / "two"))
    assert (pruned["pruned"], dense["params"] - pruned["params"]) == (True, 3 * 3 * 32)
    assert engine.state()["models"] == {"dense": dense, "pruned": pruned}
    assert list(engine.generate(str(tmp_path / "two"), PROMPT, max_new_tokens=2))[-1]["done"]
