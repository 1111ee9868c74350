"""Weights in one file or several, and nothing beside them of where the base model lay."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ArtifactError
from core.models import stored
from core.models.saved import from_pretrained
from tests.handmade import ids, logits
from tests.models.test_saved import EVEN, RAGGED, pruned, save


def test_large_weights_are_several_files_which_are_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "SHARD", "20KB")
    model, graph, plan = pruned(RAGGED)
    save(model, None, graph, plan, tmp_path / "model", facts={})
    assert len([*(tmp_path / "model").glob("model-*.safetensors")]) > 1
    tokens = ids(model)
    assert (logits(from_pretrained(tmp_path / "model"), tokens) - logits(model, tokens)).abs().max() < 1e-6
    first = next((tmp_path / "model").glob("model-00001-*.safetensors"))
    first.rename(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=f"{first.name} is missing"):
        from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("removed", [RAGGED, EVEN])
def test_a_saved_model_does_not_say_where_its_base_lay(
    tmp_path: Path, removed: dict[str, tuple[int, ...]]
) -> None:
    model, graph, plan = pruned(removed)
    model.config._name_or_path = "/home/somebody/dense"
    save(model, None, graph, plan, tmp_path / "model", facts={})
    saying = [path.name for path in (tmp_path / "model").iterdir() if b"somebody" in path.read_bytes()]
    assert not saying
