"""Of a model that sees, the language part is cut, and all is saved back with the rest untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from core.errors import ModelError
from core.graph.discover import discover, discover_config
from core.models import saved
from core.models.load import load
from core.plan.cost import with_costs
from core.plan.records import PruningPlan
from core.surgery.masks import masked
from core.surgery.operate import operate
from tests.conftest import word_tokenizer

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])
TEXT = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
EYES = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
QWEN_EYES = {
    "depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "in_channels": 3,
    "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "llava": {
        "text_config": {**TEXT, "model_type": "llama"}, "image_token_index": 127,
        "vision_config": {**EYES, "model_type": "clip_vision_model"},
    },
    "gemma3": {
        "text_config": {**TEXT, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16},
        "vision_config": EYES, "mm_tokens_per_image": 4, "image_token_index": 127, "boi_token_index": 126,
        "eoi_token_index": 125,
    },
    "qwen2_vl": {
        "text_config": {**TEXT, "rope_parameters": {
            "rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}},
        "vision_config": QWEN_EYES, "image_token_id": 127, "video_token_id": 126,
        "vision_start_token_id": 125, "vision_end_token_id": 124,
    },
    "qwen3_vl": {
        "text_config": {**TEXT, "head_dim": 8, "rope_parameters": {
            "rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}},
        "vision_config": {
            "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "in_channels": 3,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32,
            "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
        "image_token_id": 127, "video_token_id": 126, "vision_start_token_id": 125,
        "vision_end_token_id": 124,
    },
}  # fmt: skip
REMOVED = {"L00.ffn_channel": (1, 5), "L01.query_head": (2,), "L01.ffn_channel": (0, 7)}
EVEN = {f"L0{layer}.{kind}": (0, 1) for layer in (0, 1) for kind in ("ffn_channel",)}


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(
        AutoConfig.for_model(request.param, **CASES[request.param])
    )
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn(parameter.shape) * 0.15 + (parameter.ndim == 1))
    model.save_pretrained(tmp_path / "source")
    word_tokenizer().save_pretrained(tmp_path / "source")
    (tmp_path / "source" / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    return tmp_path / "source"


@pytest.mark.parametrize("removed", [REMOVED, EVEN], ids=["uneven", "even"])
def test_the_rest_stays_as_it_was(folder: Path, tmp_path: Path, removed: dict[str, tuple[int, ...]]) -> None:
    loaded = load(str(folder), device="cpu")
    graph = discover(loaded.model)
    plan = with_costs(graph, PruningPlan(removed), list(graph.groups))
    others = {
        name: value.clone()
        for name, value in loaded.model.state_dict().items()
        if "language_model" not in name
    }
    with torch.no_grad():
        with masked(loaded.model, graph, plan.removed):
            wanted = loaded.model(IDS).logits
        cut = operate(loaded.model, graph, plan.removed)
        rows = saved.save(cut, loaded.tokenizer, graph, plan, tmp_path / "model", facts={})
        read = saved.load(tmp_path / "model")[0]
    ours = "preprocessor_config.json"
    assert (tmp_path / "model" / ours).read_text() == (folder / ours).read_text()
    stock = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", trust_remote_code=True).eval()
    with torch.no_grad():
        assert torch.allclose(stock(IDS).logits, wanted, atol=1e-4)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "AutoModelForImageTextToText.from_pretrained(" in card
    assert len(rows) == 2 and all(row.holds for row in rows)
    assert torch.allclose(read(IDS).logits, wanted, atol=1e-4)
    after = read.state_dict()
    assert any("vision" in name or "visual" in name for name in others)
    assert all(torch.equal(after[name], value) for name, value in others.items())


def test_hidden_channels_are_refused_where_pictures_enter(folder: Path) -> None:
    graph = discover(load(str(folder), device="cpu").model)
    (group,) = graph.of_kind("residual_channel")
    assert not group.prunable and "a pass over text does not run" in str(group.reason)


@pytest.mark.parametrize("folder", ["qwen3_vl"], indirect=True)
def test_answers_to_pictures_are_those_of_the_masked_model(folder: Path, tmp_path: Path) -> None:
    """What it sees is added after the first layers, by their number: that stays with a layer gone."""
    loaded = load(str(folder), device="cpu")
    seen: dict[str, Any] = {
        "input_ids": torch.tensor([[5, 125, 127, 124, 6, 7]]), "image_grid_thw": torch.tensor([[1, 2, 2]]),
        "pixel_values": torch.randn(4, 1176), "mm_token_type_ids": torch.tensor([[0, 0, 1, 0, 0, 0]]),
    }  # fmt: skip
    graph = discover(loaded.model)
    plan = with_costs(graph, PruningPlan({"L00.layer": (0,)}), list(graph.groups))
    with torch.no_grad():
        dense = loaded.model(**seen).logits
        with masked(loaded.model, graph, plan.removed):
            wanted = loaded.model(**seen).logits
            blind = loaded.model(**{**seen, "pixel_values": seen["pixel_values"] * 0}).logits
        cut = operate(loaded.model, graph, plan.removed)
        saved.save(cut, loaded.tokenizer, graph, plan, tmp_path / "model", facts={})
        read = saved.load(tmp_path / "model")[0]
        stock = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", trust_remote_code=True).eval()
        assert (wanted - dense).abs().max() > 1e-2 and (wanted - blind).abs().max() > 1e-2
        for model in (cut, read, stock):
            assert torch.allclose(model(**seen).logits, wanted, atol=1e-4)


def test_layers_that_text_does_not_run_are_named() -> None:
    """Llama 3.2 Vision: what its layers between read is the picture."""
    rope = {"rope_type": "default", "rope_theta": 1e4}
    text = {**TEXT, "num_hidden_layers": 3, "cross_attention_layers": [1], "rope_parameters": rope}
    eyes = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_global_layers": 1,
        "attention_heads": 2, "image_size": 28, "patch_size": 14, "max_num_tiles": 1, "vision_output_dim": 32,
        "supported_aspect_ratios": [[1, 1]], "intermediate_layers_indices": [0],
    }  # fmt: skip
    config = AutoConfig.for_model("mllama", text_config=text, vision_config=eyes, image_token_index=127)
    told = r"runs 2 of the 3 layers in '.*layers', and not layer 1 \(MllamaCrossAttentionDecoderLayer\)"
    with pytest.raises(ModelError, match=told):
        discover_config(config, name="mllama")
