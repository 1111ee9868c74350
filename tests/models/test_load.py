"""Models are loaded from folders, runs and the hub's cache, on the best device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core.devices.picked import pick_device, pick_dtype
from core.errors import ModelError
from core.models import load as models
from tests.conftest import llama_config, random_model


def test_a_folder_in_the_hubs_layout_loads(tiny_llama_folder: Path) -> None:
    loaded = models.load(str(tiny_llama_folder), device="cpu")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, random_model(llama_config())(ids).logits)
    assert (loaded.name, loaded.dtype, loaded.device.type, loaded.plan) == (
        "tiny-llama",
        torch.float32,
        "cpu",
        None,
    )
    assert loaded.tokenizer("the of")["input_ids"] == [4, 6]
    assert not loaded.model.training


def test_eager_attention_and_dtype_are_what_was_asked_for(tiny_llama_folder: Path) -> None:
    asked = {"device": "cpu", "dtype": "bfloat16", "attn_implementation": "eager"}
    loaded = models.load(str(tiny_llama_folder), **asked)
    assert loaded.model.config._attn_implementation == "eager"
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}


def test_a_config_alone_loads(tmp_path: Path) -> None:
    llama_config().save_pretrained(tmp_path)
    assert models.load_config(str(tmp_path)).num_hidden_layers == 2


@pytest.fixture(scope="module")
def pruned_run(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A run directory whose model has lost FFN channels of one layer and a head of the other."""
    from core.models import saved
    from core.plan.cost import with_costs
    from core.plan.records import PruningPlan
    from core.surgery.operate import operate
    from tests.handmade import graph_of

    run = tmp_path_factory.mktemp("runs") / "run-1"
    model = random_model(llama_config())
    graph = graph_of(model)
    plan = with_costs(
        graph, PruningPlan({"L00.ffn_channel": (1, 5), "L01.query_head": (2,)}), list(graph.groups)
    )
    saved.save(operate(model, graph, plan.removed), tiny_tokenizer, graph, plan, run / "model", facts={})
    (run / "spec.json").write_text("{}")
    return run


@pytest.mark.parametrize("inside", ["", "model"])
def test_pruned_models_go_through_the_plan(pruned_run: Path, inside: str) -> None:
    from core.surgery.masks import masked
    from tests.handmade import graph_of

    loaded = models.load(str(pruned_run / inside), device="cpu")
    assert loaded.plan is not None
    dense, ids = random_model(llama_config()), torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad(), masked(dense, graph_of(dense), loaded.plan.removed):
        assert torch.allclose(loaded.model(ids).logits, dense(ids).logits, atol=1e-4)
    assert loaded.tokenizer("the of")["input_ids"] == [4, 6]


def test_a_pruned_model_without_tokenizer_is_refused(pruned_run: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(pruned_run / "model", tmp_path / "model")
    for file in (tmp_path / "model").glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match="without a tokenizer"):
        models.load(str(tmp_path / "model"), device="cpu")


def test_a_cached_hub_model_needs_no_hub(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's cache layout: models--org--name/{refs/main, snapshots/<revision>/…}."""
    import shutil

    import huggingface_hub

    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--name"
    shutil.copytree(tiny_llama_folder, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "model_info", unreachable)
    loaded = models.load("org/name", device="cpu")
    assert (loaded.name, loaded.revision) == ("org/name", revision)


def test_the_best_device_is_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda"
    assert pick_dtype("auto", pick_device("auto")) == torch.bfloat16
    assert pick_device("cuda:0").index == 0
    with pytest.raises(ModelError, match="'cuda:1' is not here; this machine has cpu, cuda, mps"):
        pick_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32


def test_absent_devices_and_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="'cuda' is not here; this machine has cpu"):
        pick_device("cuda")
    with pytest.raises(ModelError, match="Unknown device 'gpu'"):
        pick_device("gpu")
    with pytest.raises(ModelError, match="Unknown dtype 'fp8'"):
        pick_dtype("fp8", torch.device("cpu"))
