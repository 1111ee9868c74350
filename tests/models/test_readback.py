"""What is saved is read as its user will: in another process, on long inputs, with the code it needs."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from core.errors import ArtifactError
from core.graph.discover import discover
from core.models import load as models
from core.models import reading, saved
from core.models.empty import empty_model
from core.models.readback import longest, probe
from core.models.saved import from_pretrained, save
from core.models.stored import read_weights, round_to
from core.plan.cost import with_costs
from core.plan.records import PruningPlan
from core.surgery.operate import operate
from tests.conftest import llama_config, random_model, word_tokenizer
from tests.graph import packed
from tests.graph.families import build
from tests.handmade import ids, logits

HEADS = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
ROPES: dict[str, tuple[str, dict[str, Any], int]] = {
    "none": ("llama", {}, 0),
    "linear": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, 0),
    "yarn": (
        "llama",
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
        64,
    ),
    "llama3": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
        64,
    ),
    "dynamic": ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, 256),
    "longrope": (
        "phi3",
        {
            "original_max_position_embeddings": 48,
            "rope_parameters": {
                "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
                "original_max_position_embeddings": 48,
            },
        },
        48,
    ),
    "window": ("mistral", {"sliding_window": 40}, 40),
    "windows in some layers": ("gemma2", {"sliding_window": 24, "head_dim": 8}, 24),
}  # fmt: skip


def made(kind: str, changes: dict[str, Any]) -> PreTrainedModel:
    values = {"vocab_size": 96, "intermediate_size": 24, "num_hidden_layers": 2, **HEADS, **changes}
    if "rope_parameters" in values:
        values["rope_parameters"] = {**changes["rope_parameters"], "rope_theta": 1e4}
    model: PreTrainedModel = random_model(
        AutoConfig.for_model(kind, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, **values)
    )
    return model


def pruned(model: PreTrainedModel, folder: Path, tokenizer: Any = None, **options: Any) -> list[Any]:
    """Cut and save a model, ragged: every other layer loses its first channels and its first head."""
    graph = discover(model, name="tiny")
    groups = [group for group in graph.of_kind("query_head", "ffn_channel") if group.layer == 0]
    removed = {group.id: (0, 1) if group.kind == "ffn_channel" else (0,) for group in groups}
    operate(model, graph, removed)
    plan = with_costs(graph, PruningPlan(removed, "tiny"), groups)
    return save(model, tokenizer, graph, plan, folder, **options)


@pytest.mark.parametrize("name", ROPES)
def test_the_input_goes_further_than_any_length_of_the_config(name: str, tmp_path: Path) -> None:
    kind, changes, length = ROPES[name]
    model = made(kind, changes)
    assert longest(model.config) == length
    assert probe(model, stock=False).ids.shape[1] == max(32, length + 1)
    rows = pruned(model, tmp_path / "model")
    assert [row.where.split()[1] for row in rows] == ["the", "transformers"]
    assert all(row.holds and row.difference <= row.allowed / 4 for row in rows)
    tokens = ids(model, length=length + 40)
    assert (logits(from_pretrained(tmp_path / "model"), tokens) - logits(model, tokens)).abs().max() < 1e-5


def test_where_the_length_is_too_dear_a_short_input_stands_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.models.readback._MOST_PRODUCTS", {"cpu": 1.0})
    short = probe(made(*ROPES["longrope"][:2]), stock=False)
    assert (short.ids.shape[1], short.start) == (32, 48 + 1 - 32)
    assert short.extent == "on positions 17 to 48, fewer tokens than a window has"


@pytest.mark.new_process
def test_another_process_reads_it_both_ways(tmp_path: Path) -> None:
    model = random_model(llama_config())
    graph = discover(model, name="tiny")
    removed = {group.id: (0, 1) for group in graph.of_kind("ffn_channel")}
    operate(model, graph, removed)
    plan = with_costs(graph, PruningPlan(removed, "tiny"), graph.of_kind("ffn_channel"))
    rows = save(model, word_tokenizer(), graph, plan, tmp_path / "model")
    ways = [f"by {name} on positions 0 to 31" for name in ("the workbench", "transformers")]
    assert [row.where for row in rows] == ways
    assert all(row.holds for row in rows)


@pytest.mark.new_process
def test_classes_of_another_package_are_imported_there(tmp_path: Path) -> None:
    (row,) = pruned(build("packed"), tmp_path / "model")
    assert row.holds


def test_what_does_not_read_back_is_kept_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "before").touch()
    right = read_weights

    def wrong(*args: Any) -> dict[str, torch.Tensor]:
        return {name: value * (1.001 if "down_proj" in name else 1.0) for name, value in right(*args).items()}

    monkeypatch.setattr(saved, "read_weights", wrong)
    with pytest.raises(ArtifactError, match=r"is not the model that was saved: off by .*model-unread"):
        pruned(random_model(llama_config()), tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model-unread"]
    assert (tmp_path / "model" / "before").exists()
    monkeypatch.undo()
    from_pretrained(tmp_path / "model-unread")


def with_code(folder: Path) -> Path:
    """A model that brings code of its own: its class stands in a file beside the weights."""
    model = build("packed")
    model.save_pretrained(folder)
    word_tokenizer(61).save_pretrained(folder)
    source = Path(packed.__file__).read_text(encoding="utf-8")
    source = source[: source.index("AutoConfig.register")].replace('"packed"', '"carried"')
    (folder / "modeling_carried.py").write_text(source, encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "carried", "auto_map": {
        "AutoConfig": "modeling_carried.PackedConfig",
        "AutoModelForCausalLM": "modeling_carried.PackedForCausalLM",
        "AutoModel": "somebody/else--modeling_carried.PackedForCausalLM",
    }}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.new_process
def test_code_goes_along_and_is_never_asked_for(tmp_path: Path) -> None:
    source, folder = with_code(tmp_path / "source"), tmp_path / "model"
    loaded = models.load(str(source), device="cpu", trust_remote_code=True)
    rows = pruned(loaded.model, folder, loaded.tokenizer, dtype=loaded.stored)
    assert len(rows) == 2 and all(row.holds for row in rows) and (folder / "modeling_carried.py").is_file()
    assert "trust_remote_code=True" in (folder / "README.md").read_text(encoding="utf-8")
    for name in ("config.json", "README.md", "tokenizer_config.json", "plan.json"):
        text = (folder / name).read_text(encoding="utf-8")
        assert str(tmp_path) not in text and "somebody" not in text, name
    with pytest.raises(ArtifactError, match=r"brings code of its own: read that code, then allow it"):
        from_pretrained(folder)
    again = models.load(str(folder), device="cpu", trust_remote_code=True).model
    tokens = ids(loaded.model)
    assert torch.equal(logits(again, tokens), logits(loaded.model, tokens))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_type_on_disk_is_that_of_the_source(tmp_path: Path, dtype: torch.dtype) -> None:
    random_model(llama_config()).to(dtype).save_pretrained(tmp_path / "source")
    word_tokenizer().save_pretrained(tmp_path / "source")
    loaded = models.load(str(tmp_path / "source"), device="cpu", dtype="float32")
    assert (loaded.stored, loaded.dtype) == (dtype, torch.float32)
    with torch.no_grad():
        loaded.model.get_parameter("model.norm.weight").mul_(1.0001)  # as training does
    pruned(loaded.model, tmp_path / "model", dtype=loaded.stored)
    assert {value.dtype for value in load_file(tmp_path / "model" / "model.safetensors").values()} == {dtype}
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == str(dtype).removeprefix("torch.")
    assert from_pretrained(tmp_path / "model").dtype == dtype


def test_rounding_leaves_what_a_class_wants_in_float32() -> None:
    model = random_model(llama_config())
    model._keep_in_fp32_modules = ["mlp"]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1e-4)
    before = {name: value.clone() for name, value in model.named_parameters()}
    round_to(model, torch.bfloat16)
    same = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert same == {name for name in before if ".mlp." in name}


def test_files_are_readable_as_new_files_are(tmp_path: Path) -> None:
    pruned(random_model(llama_config()), tmp_path / "model", word_tokenizer())
    (tmp_path / "new").touch()
    usual = stat.S_IMODE((tmp_path / "new").stat().st_mode)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").iterdir()} == {usual}
    assert usual & stat.S_IRGRP


class Sloped(PreTrainedModel):
    """Keeps a tensor as a plain attribute, computed where its weights are, alone and in a list."""

    config_class = PretrainedConfig

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.linear = nn.Linear(4, 4)
        self.slopes = torch.arange(4.0, device=self.linear.weight.device)
        self.parts = [torch.ones(2).to(self.linear.weight.device)]
        self.post_init()


def test_plain_attributes_have_numbers_in_a_model_without_weights() -> None:
    model: Any = empty_model(PretrainedConfig(), Sloped)
    assert model.linear.weight.is_meta
    assert model.slopes.tolist() == [0, 1, 2, 3] and model.parts[0].tolist() == [1, 1]


def test_a_tensor_without_numbers_is_named() -> None:
    model = random_model(llama_config())
    model.model.layers[1].mlp.scale = torch.ones(2, device="meta")
    with pytest.raises(ArtifactError, match=r"model\.layers\.1\.mlp\.scale has no numbers"):
        reading._agreement("here", model, probe(random_model(llama_config()), stock=False))


def test_stock_models_are_what_transformers_reads(tmp_path: Path) -> None:
    model = random_model(llama_config())
    graph = discover(model, name="tiny")
    removed = {group.id: (0, 1) for group in graph.of_kind("ffn_channel")}
    operate(model, graph, removed)
    plan = with_costs(graph, PruningPlan(removed, "tiny"), graph.of_kind("ffn_channel"))
    save(model, None, graph, plan, tmp_path / "model", dtype=torch.bfloat16)
    loader: Any = AutoModelForCausalLM
    again = loader.from_pretrained(tmp_path / "model").float()
    assert torch.equal(logits(again, ids(model)), logits(model, ids(model)))
