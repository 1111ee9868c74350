"""Reloaded = sliced; a folder is whole or not there; alike layers load with plain transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.errors import ArtifactError, NotPrunableError, StorageError
from core.graph.records import Graph
from core.models import stored
from core.models.saved import from_pretrained, load, save
from core.plan.cost import with_costs
from core.plan.records import PruningPlan
from core.surgery.operate import operate
from tests.handmade import FAMILIES, graph_of, ids, logits, random_plan, tiny

RAGGED = {"L00.query_head": (0,), "L01.query_head": (1, 2), "L00.ffn_channel": (3, 4, 5)}
EVEN = {
    f"L0{i}.{kind}": units
    for i in range(2)
    for kind, units in {"query_head": (i, 3), "ffn_channel": (2,)}.items()
}


def pruned(
    removed: dict[str, tuple[int, ...]], family: str = "llama", **changes: object
) -> tuple[PreTrainedModel, Graph, PruningPlan]:
    model = tiny(family, **changes)  # type: ignore[arg-type]
    graph = graph_of(model)
    plan = with_costs(graph, PruningPlan(removed, "tiny", "l2"), graph.of_kind("query_head", "ffn_channel"))
    return operate(model, graph, removed), graph, plan


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_reloaded_equals_sliced_for_random_plans(family: str, seed: int, tmp_path: Path) -> None:
    removed = random_plan(graph_of(tiny(family)), seed, ("query_head", "ffn_channel", "residual_channel"))
    model, graph, plan = pruned(removed, family)
    save(model, None, graph, plan, tmp_path / "model", facts={})
    again, tokenizer, read = load(tmp_path / "model")
    tokens = ids(model)
    assert (logits(again, tokens) - logits(model, tokens)).abs().max() < 1e-4
    assert tokenizer is None and read == plan and not again.training
    assert all(not t.is_meta for t in [*again.parameters(), *again.buffers()])


def test_reloaded_generates_the_same(tmp_path: Path) -> None:
    model, graph, plan = pruned(RAGGED)
    save(model, None, graph, plan, tmp_path / "model", facts={})
    again, prompt = from_pretrained(tmp_path / "model"), ids(model, length=4)
    ask = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 10, "do_sample": False}
    assert torch.equal(again.generate(prompt, **ask), model.generate(prompt, **ask))


@pytest.mark.parametrize("removed", [RAGGED, {"residual_channel": (0, 5)}], ids=["ragged", "residual"])
def test_tied_embeddings_are_saved_once_and_tied_again(removed: dict, tmp_path: Path) -> None:
    model, graph, plan = pruned(removed, tie_word_embeddings=True)
    save(model, None, graph, plan, tmp_path / "model", facts={})
    again = from_pretrained(tmp_path / "model")
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert torch.equal(logits(again, ids(model)), logits(model, ids(model)))


def test_dtype_is_that_of_the_file_or_the_one_asked_for(tmp_path: Path) -> None:
    model, graph, plan = pruned(RAGGED)
    save(model.bfloat16(), None, graph, plan, tmp_path / "model", facts={})
    same, other = (
        from_pretrained(tmp_path / "model"),
        from_pretrained(tmp_path / "model", dtype=torch.float32),
    )
    assert {p.dtype for p in same.parameters()} == {torch.bfloat16} and same.dtype == torch.bfloat16
    assert {p.dtype for p in other.parameters()} == {torch.float32}
    assert same.model.rotary_emb.inv_freq.dtype == torch.float32  # half precision would blur positions


def test_alike_layers_load_with_plain_transformers(tmp_path: Path) -> None:
    model, graph, plan = pruned(EVEN)
    save(model, None, graph, plan, tmp_path / "model", facts={})
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokens = ids(model)
    assert (logits(stock, tokens) - logits(model, tokens)).abs().max() < 1e-5
    assert (logits(from_pretrained(tmp_path / "model"), tokens) - logits(model, tokens)).abs().max() < 1e-5
    assert json.loads((tmp_path / "model" / "base_config.json").read_text())["num_attention_heads"] == 4
    assert "AutoModelForCausalLM" in (tmp_path / "model" / "README.md").read_text()


def test_uneven_layers_keep_the_base_config(tmp_path: Path) -> None:
    model, graph, plan = pruned(RAGGED)
    save(model, None, graph, plan, tmp_path / "model", facts={})
    assert not (tmp_path / "model" / "base_config.json").exists()
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["num_attention_heads"] == 4 and config["architectures"] == ["PrunedForCausalLM"]


def test_the_card_says_what_was_measured_and_on_what(tmp_path: Path) -> None:
    model, graph, plan = pruned(RAGGED)
    facts = {
        "ppl_before": 20.0, "ppl_after": 25.123, "ppl_text": "speeches", "ppl_window": 256,
        "license": "apache-2.0", "calibration_text": "factbook", "latency_ms_before": None,
    }  # fmt: skip
    save(model, None, graph, plan, tmp_path / "model", facts=facts)
    text = (tmp_path / "model" / "README.md").read_text()
    for part in (
        "| 20.00 | 25.12 |",
        "speeches, windows of 256",
        "license: apache-2.0",
        "factbook",
        "`l2`",
        "17,056",
    ):
        assert part in text
    assert "Time to read a prompt" not in text and "from core.export import from_pretrained" in text


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("No space left (os error 28)")]
)
def test_a_full_disk_leaves_nothing_half_written(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, graph, plan = pruned(RAGGED)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(stored, "save_torch_state_dict", fail)
    with pytest.raises(StorageError, match="free some space"):
        save(model, None, graph, plan, tmp_path / "model", facts={})
    assert left_over(tmp_path) == []


def test_a_disk_too_small_is_noticed_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, graph, plan = pruned(RAGGED)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("core.models.saved.shutil.disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StorageError, match="free some space"):
        save(model, None, graph, plan, tmp_path / "model", facts={})


def test_a_failed_save_keeps_the_model_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, graph, plan = pruned(RAGGED)
    save(model, None, graph, plan, tmp_path / "model", facts={})
    save(model, None, graph, plan, tmp_path / "model", facts={"license": "mit"})
    assert "mit" in (tmp_path / "model" / "README.md").read_text()

    def fail(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(stored, "save_torch_state_dict", fail)
    with pytest.raises(ValueError, match="a bug"):
        save(model, None, graph, plan, tmp_path / "model", facts={})
    assert left_over(tmp_path) == ["model"]
    assert torch.equal(logits(from_pretrained(tmp_path / "model"), ids(model)), logits(model, ids(model)))


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model, graph, plan = pruned(RAGGED)
    with pytest.raises(StorageError, match="cannot be written"):
        save(model, None, graph, plan, tmp_path / "file" / "model", facts={})


def test_a_plan_of_another_model_is_not_saved(tmp_path: Path) -> None:
    model, graph, _ = pruned(RAGGED)
    other = PruningPlan({"L00.ffn_channel": (0,)})
    with pytest.raises(NotPrunableError, match="pruned before"):
        save(model, None, graph, other, tmp_path / "model", facts={})
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("name", ["plan.json", "groups.json", "config.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_damage_is_named(name: str, damage: str, tmp_path: Path) -> None:
    model, graph, plan = pruned(RAGGED)
    save(model, None, graph, plan, tmp_path / "model", facts={})
    path = tmp_path / "model" / name
    content = path.read_bytes()
    path.unlink()
    if damage == "torn":
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        load(tmp_path / "model")


def test_weights_that_do_not_fit_the_plan_are_refused(tmp_path: Path) -> None:
    model, graph, plan = pruned(RAGGED)
    save(model, None, graph, plan, tmp_path / "model", facts={})
    (tmp_path / "model" / "plan.json").write_text(PruningPlan({"L00.ffn_channel": (0,)}).to_json())
    with pytest.raises(ArtifactError, match="do not fit the plan"):
        load(tmp_path / "model")


def test_no_pickle_is_written(tmp_path: Path) -> None:
    model, graph, plan = pruned(RAGGED)
    save(model, None, graph, plan, tmp_path / "model", facts={})
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {".json", ".md", ".py", ".safetensors"}
