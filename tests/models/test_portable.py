"""A saved folder whose layers differ, read and used by transformers alone."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel, pipeline

from core.errors import ArtifactError
from core.models.saved import load, save
from core.plan.cost import with_costs
from core.plan.records import PruningPlan
from core.surgery.operate import operate
from tests.conftest import word_tokenizer
from tests.graph.families import graph_of, model_of
from tests.handmade import ids, logits
from tests.surgery.test_contract import KINDS, ragged


def saved(folder: Path, family: str = "llama") -> PreTrainedModel:
    """A ragged model, saved with a tokenizer. Returns it."""
    graph = graph_of(family)
    removed = ragged(graph)
    small = operate(copy.deepcopy(model_of(family, None)), graph, removed)
    plan = with_costs(graph, PruningPlan(removed, family), graph.of_kind(*KINDS))
    save(small, word_tokenizer(), graph, plan, folder)
    return small


def read(folder: Path, **more: Any) -> Any:
    door: Any = AutoModelForCausalLM
    return door.from_pretrained(folder, trust_remote_code=True, **more).eval()


@pytest.mark.parametrize(
    "family", ["llama", "qwen2", "qwen3", "gpt2", "bloom", "phi3", "falcon_grouped", "gemma3", "mixtral"]
)
def test_transformers_computes_what_was_saved_and_saves_it_again(family: str, tmp_path: Path) -> None:
    small = saved(tmp_path / "model", family)
    again, tokens = read(tmp_path / "model"), ids(small)
    assert type(again).__name__ == "PrunedForCausalLM"
    assert (logits(again, tokens) - logits(small, tokens)).abs().max() <= 1e-5
    generated = [
        again.generate(tokens, max_new_tokens=4, do_sample=False, **more).tolist()
        for more in ({"use_cache": False}, {}, {"cache_implementation": "static"})
        if "cache_implementation" not in more or again._can_compile_fullgraph
    ]
    assert generated[0] == generated[1] == generated[-1]
    again.save_pretrained(tmp_path / "second", max_shard_size="60KB")
    assert len([*(tmp_path / "second").glob("*.safetensors")]) > 1
    twice = read(tmp_path / "second", device_map="cpu")
    assert torch.equal(logits(twice, tokens), logits(again, tokens))
    door: Any = AutoModel
    inner = door.from_pretrained(tmp_path / "model", trust_remote_code=True).eval()
    hidden = again(tokens, output_hidden_states=True).hidden_states[-1]
    assert torch.allclose(inner(tokens).last_hidden_state, hidden, atol=1e-5)


# peft asks transformers by a name of the past
@pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning")
@pytest.mark.parametrize("family", ["llama", "qwen2", "bloom"])
def test_others_train_it(family: str, tmp_path: Path) -> None:
    small = saved(tmp_path / "model", family)
    model, tokens = read(tmp_path / "model").train(), ids(small)
    model.activation_checkpointing_enable()
    tuned: Any = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    tuned.enable_input_require_grads()
    tuned(tokens, labels=tokens, use_cache=False).loss.backward()
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            parameter.add_(0.1 if "lora_B" in name else 0.0)
    adapted = logits(tuned.eval(), tokens)
    assert not torch.allclose(adapted, logits(small, tokens), atol=1e-3)
    merged = tuned.merge_and_unload()
    assert torch.allclose(logits(merged, tokens), adapted, atol=1e-4)


def test_a_pipeline_takes_the_folder(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    make: Any = pipeline
    answer = make("text-generation", model=str(tmp_path / "model"), trust_remote_code=True)(
        "the a of", max_new_tokens=3, do_sample=False
    )
    assert answer[0]["generated_text"].startswith("the a of")


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks model\.layers\.1\.mlp\.down_proj\.weight"):
        read(tmp_path / "model")
    with pytest.raises(ArtifactError):
        load(tmp_path / "model")


def test_the_record_is_data_of_what_differs_and_the_code_names_nothing_of_ours(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    record = config["pruned"]
    assert record["kv_index"]["model.layers.0.self_attn"] == [0, 0, 1, 1, 1]
    assert record["shapes"]["model.layers.1.mlp.up_proj.weight"] == [35, 48]
    assert not any("embed" in name for name in record["shapes"])
    assert config["auto_map"] == {
        "AutoModel": "modeling_pruned.PrunedModel",
        "AutoModelForCausalLM": "modeling_pruned.PrunedForCausalLM",
    }
    code = (tmp_path / "model" / "modeling_pruned.py").read_text()
    assert not any(
        f"import {name}" in code or f"from {name}" in code for name in ("core", "accelerate", "peft")
    )
    assert "modeling_pruned" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
def test_layers_that_are_all_alike_are_a_stock_model(family: str, tmp_path: Path) -> None:
    graph = graph_of(family)
    alike = {group.id: (0,) for group in graph.of_kind("kv_group")}
    alike |= {group.id: (1, 2) for group in graph.of_kind("ffn_channel")}
    small = operate(copy.deepcopy(model_of(family, None)), graph, alike)
    plan = with_costs(graph, PruningPlan(alike, family), graph.of_kind(*KINDS))
    save(small, None, graph, plan, tmp_path / "model")
    assert not (tmp_path / "model" / "modeling_pruned.py").exists()
    door: Any = AutoModelForCausalLM
    stock = door.from_pretrained(tmp_path / "model").eval()
    assert stock.config.model_type == family and "Pruned" not in type(stock).__name__
    assert (logits(stock, ids(small)) - logits(small, ids(small))).abs().max() <= 1e-5
