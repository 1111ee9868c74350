"""Saving and reading back: the reloaded model is the sliced one, and nothing half-written stays."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from core import export
from core.errors import ArtifactError, StorageError
from core.graph.discover import discover
from core.plan import PruningPlan, with_costs
from core.surgery import operate
from tests.conftest import llama_config, random_model

RAGGED = {"L00.ffn_channel": (1, 5, 6), "L01.ffn_channel": (0,), "L00.query_head": (1,), "L01.kv_group": (0,)}
IDS = torch.arange(24).view(2, 12) % 128


def cut(removed=RAGGED, **changes):  # type: ignore[no-untyped-def]
    model = random_model(llama_config(**changes))
    graph = discover(model, name="tiny")
    plan = with_costs(graph, PruningPlan(removed, model="tiny", method="test"), list(graph.groups))
    return operate(model, graph, removed), graph, plan


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("removed", [{}, RAGGED, {"residual_channel": (0, 3, 9)}])
def test_reloaded_is_sliced(tmp_path: Path, tiny_tokenizer, tied, removed) -> None:  # type: ignore[no-untyped-def]
    model, graph, plan = cut(removed, tie_word_embeddings=tied)
    export.save(model, tiny_tokenizer, graph, plan, tmp_path / "model", facts={})
    loaded, tokenizer, again = export.load(tmp_path / "model")
    assert again == plan and tokenizer.vocab_size == tiny_tokenizer.vocab_size
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert loaded.generate(IDS[:1], max_new_tokens=5, do_sample=False).shape[1] > IDS.shape[1]


def test_a_full_disk_leaves_the_previous_model_and_no_rest(tmp_path, tiny_tokenizer, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    model, graph, plan = cut()
    export.save(model, tiny_tokenizer, graph, plan, tmp_path / "model", facts={})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "save_torch_state_dict", full)
    with pytest.raises(StorageError, match="free some space"):
        export.save(model, tiny_tokenizer, graph, plan, tmp_path / "model", facts={})
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    export.load(tmp_path / "model")


def test_weights_that_do_not_fit_the_plan_are_refused(tmp_path: Path, tiny_tokenizer) -> None:  # type: ignore[no-untyped-def]
    model, graph, plan = cut()
    export.save(model, tiny_tokenizer, graph, plan, tmp_path / "model", facts={})
    (tmp_path / "model" / "plan.json").write_text(PruningPlan({"L00.ffn_channel": (1,)}).to_json())
    with pytest.raises(ArtifactError, match="do not fit"):
        export.load(tmp_path / "model")


def test_the_card_tells_how_it_was_made(tmp_path: Path, tiny_tokenizer) -> None:  # type: ignore[no-untyped-def]
    model, graph, plan = cut()
    facts = {"ppl_before": 10.0, "ppl_after": 12.5, "ppl_text": "bundled", "ppl_window": 128}
    export.save(model, tiny_tokenizer, graph, plan, tmp_path / "model", facts=facts)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "12.50 (dense: 10.00) on bundled in windows of 128 tokens" in card
    assert f"{plan.sparsity:.1%} of block parameters" in card
