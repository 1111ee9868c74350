"""What was really loaded counts, whatever config and tokenizer say; what cannot be pruned is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig

from core.errors import ModelError
from core.graph.discover import discover
from core.models import saved
from core.models.load import Loaded, check_model, load, load_config
from core.plan.cost import with_costs
from core.plan.records import PruningPlan
from core.spec.model import ModelSpec
from core.surgery.masks import masked
from core.surgery.operate import operate
from tests.conftest import llama_config, random_model, word_tokenizer

SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)
IDS = torch.tensor([[5, 6, 7, 8, 9]])


def write(folder: Path, kind: str = "llama", *, tokenizer: Any = None, **changes: Any) -> Path:
    """A small model in the hub's layout."""
    if kind == "llama":
        config = llama_config(**changes)
    else:
        heads = {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "num_hidden_layers": 2,
            "vocab_size": 128,
        }
        config = AutoConfig.for_model(
            kind, **{"hidden_size": 32, "intermediate_size": 48, **heads, **changes}
        )
    random_model(config).save_pretrained(folder)
    (tokenizer or word_tokenizer()).save_pretrained(folder)
    return folder


def edit(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def rewrite(folder: Path, change: Callable[[str, Tensor], tuple[str, Tensor]]) -> Path:
    path = folder / "model.safetensors"
    weights = dict(change(name, value) for name, value in load_file(path).items())
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def comes_back(loaded: Loaded, folder: Path) -> None:
    """Masked, cut, saved and read again, a model computes the same."""
    graph = discover(loaded.model)
    plan = PruningPlan({"L00.ffn_channel": (1, 5), "L01.query_head": (2,), "L01.ffn_channel": (0, 7)})
    plan = with_costs(graph, plan, list(graph.groups))
    with torch.no_grad():
        with masked(loaded.model, graph, plan.removed):
            wanted = loaded.model(IDS).logits
        cut = operate(loaded.model, graph, plan.removed)
        saved.save(cut, loaded.tokenizer, graph, plan, folder, facts={})
        read = saved.load(folder)[0](IDS).logits
    assert torch.allclose(cut(IDS).logits, wanted, atol=1e-4) and torch.allclose(read, wanted, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("tied", [False, True])
def test_ties_are_those_of_the_weights(tmp_path: Path, kind: str, tied: bool) -> None:
    more: dict[str, Any] = {"gemma2": {"head_dim": 8, "sliding_window": 16}}.get(kind, {})
    more |= {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64} if kind == "gpt2" else {}
    folder = write(tmp_path / "source", kind, tie_word_embeddings=tied, **more)
    edit(folder, tie_word_embeddings=not tied)
    loaded = load(str(folder), device="cpu")
    same = loaded.model.get_input_embeddings().weight is loaded.model.get_output_embeddings().weight
    assert (same, loaded.config.tie_word_embeddings) == (tied, tied)
    assert f"says tie_word_embeddings {str(not tied).lower()}, but its weights have" in loaded.notes[0]
    plain = random_model(loaded.config)
    with torch.no_grad():
        assert torch.equal(loaded.model(IDS).logits, plain(IDS).logits)
    comes_back(loaded, tmp_path / "model")


def test_an_output_layer_alone_is_the_embedding_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "source", tie_word_embeddings=True)
    with torch.no_grad():
        wanted = load(str(folder), device="cpu").model(IDS).logits
    rewrite(folder, lambda name, value: ("lm_head.weight" if "embed_tokens" in name else name, value))
    edit(folder, tie_word_embeddings=False)
    loaded = load(str(folder), device="cpu")
    with torch.no_grad():
        assert torch.equal(loaded.model(IDS).logits, wanted)
    comes_back(loaded, tmp_path / "model")


def test_blocks_of_eight_bits_become_plain_numbers_of_one_type(tmp_path: Path) -> None:
    sizes = {"hidden_size": 128, "intermediate_size": 128, "head_dim": 32}
    folder = write(tmp_path / "source", "qwen3", **sizes)
    path, packed = folder / "model.safetensors", {}
    before = load_file(path)
    for name, value in before.items():
        inside = ".layers." in name and value.ndim == 2
        scale = value.abs().max() / 448
        packed[name] = (value / scale).to(torch.float8_e4m3fn) if inside else value.to(torch.bfloat16)
        if inside:
            packed[f"{name}_scale_inv"] = scale.expand(-(-value.shape[0] // 128), -(-value.shape[1] // 128))
    save_file({name: value.contiguous() for name, value in packed.items()}, path, metadata={"format": "pt"})
    method = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    edit(folder, dtype="bfloat16", quantization_config=method)
    loaded = load(str(folder), device="cpu")
    assert {value.dtype for value in loaded.model.parameters()} == {torch.float32}
    assert loaded.stored == torch.bfloat16
    name = "model.layers.0.mlp.down_proj.weight"
    assert torch.allclose(loaded.model.get_parameter(name), before[name], rtol=1 / 15, atol=1e-3)
    comes_back(loaded, tmp_path / "model")


def test_numbers_of_several_types_become_one(tmp_path: Path) -> None:
    folder = rewrite(write(tmp_path), lambda name, value: (name, value.half() if "proj" in name else value))
    loaded = load(str(folder), device="cpu", dtype="bfloat16")
    assert {value.dtype for value in loaded.model.parameters()} == {torch.bfloat16}


METHODS = [
    {"quant_method": "gptq", "bits": 4}, {"quant_method": "awq"}, {"load_in_4bit": True},
    {"quant_method": "bitsandbytes", "load_in_8bit": True}, {"quant_method": "compressed-tensors"},
    {"quant_method": "hqq"}, {"quant_method": "something new"},
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_quantised_weights_are_refused_by_name(tmp_path: Path, method: dict[str, Any]) -> None:
    llama_config().save_pretrained(tmp_path)
    edit(tmp_path, quantization_config=method)
    name = method.get("quant_method", "bitsandbytes")
    with pytest.raises(
        ModelError, match=rf"\({name}\), and quantised weights cannot be pruned; give the model"
    ):
        load_config(str(tmp_path))


def test_packed_weights_are_refused_without_a_word_in_the_config(tmp_path: Path) -> None:
    def pack(name: str, value: Tensor) -> tuple[str, Tensor]:
        return (name.replace("weight", "qweight"), value.int()) if "proj" in name else (name, value)

    folder = str(rewrite(write(tmp_path), pack))
    for read in (lambda: load(folder, device="cpu"), lambda: check_model(ModelSpec(source=folder))):
        with pytest.raises(ModelError, match="quantised weights cannot be pruned"):
            read()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers 1,000,000,000, and at most 1,000 are accepted"),
        ({"hidden_size": 2**40}, "hidden_size 1,099,511,627,776, and at most"),
        ({"num_attention_heads": 0}, "num_attention_heads 0, which has to be 1 or more"),
        ({"num_key_value_heads": 3}, "4 query heads and 3 key-value heads"),
        ({"layer_types": ["full_attention"] * 3}, "2 layers, and layer_types for 3 of them"),
        ({"hidden_size": "32"}, "'hidden_size' expected int, got str"),
    ],
)
def test_a_config_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    llama_config().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_config(str(edit(tmp_path, **changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intermediate_size": 49}, r"32 x 48 numbers, and its config wants 32 x 49"),
        ({"num_hidden_layers": 3}, r"lacks 9 of the model's weights, first model\.layers\.2"),
        ({"intermediate_size": 2**20}, r"numbers in its weights, and its config describes a model of 2\d\d,"),
    ],
)
def test_weights_of_another_config_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(str(edit(write(tmp_path), **changes)), device="cpu")


def test_weights_without_a_place_are_told(tmp_path: Path) -> None:
    loaded = load(str(edit(write(tmp_path), num_hidden_layers=1)), device="cpu")
    assert "has 9 weights that the model of its config has no place for" in loaded.notes[0]


def test_a_tokenizer_with_more_tokens_than_rows_is_refused(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["<|user|>", "extra"])
    folder = str(write(tmp_path, tokenizer=tokenizer))
    for read in (lambda: load(folder, device="cpu"), lambda: check_model(ModelSpec(source=folder))):
        with pytest.raises(
            ModelError, match=r"128 rows in its embedding.*up to number 129, first '<\|user\|>'"
        ):
            read()


def test_tokens_that_only_a_class_adds_are_a_note(tmp_path: Path) -> None:
    """Qwen2's tokenizer has `<|endoftext|>`, even where its files say nothing of it."""
    folder = write(tmp_path, "qwen2")
    loaded = load(str(folder), device="cpu")
    tokens = max(loaded.tokenizer.get_vocab().values())
    assert tokens < 128 or "no text may have them in it" in loaded.notes[0]
