"""A model that was pruned here is found by its plan on the hub, too, in its cache and live."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch

from core.errors import ModelError
from core.models import saved
from core.models.load import load
from core.models.sources import resolve
from core.plan.cost import with_costs
from core.plan.records import PruningPlan
from core.surgery.operate import operate
from tests.conftest import llama_config, random_model, word_tokenizer
from tests.handmade import graph_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"
IDS = torch.tensor([[5, 6, 7, 8, 9]])


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model in the hub's cache: models--org--name/{refs/main, snapshots/<commit>}."""
    repository = tmp_path / "models--org--name"
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return repository / "snapshots" / COMMIT


def cut_into(folder: Path) -> torch.Tensor:
    """Save a pruned model there; return what it computes."""
    model = random_model(llama_config())
    graph = graph_of(model)
    plan = PruningPlan({"L00.ffn_channel": (1, 5), "L01.query_head": (2,)})
    plan = with_costs(graph, plan, list(graph.groups))
    model = operate(model, graph, plan.removed)
    shutil.rmtree(folder)
    saved.save(model, word_tokenizer(), graph, plan, folder, facts={})
    with torch.no_grad():
        return model(IDS).logits  # type: ignore[no-any-return]


def without_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "model_info", unreachable)


def with_hub(monkeypatch: pytest.MonkeyPatch, snapshot: Path) -> list[Any]:
    """A hub that has a snapshot's files; the answer fills with what is fetched."""
    fetched: list[Any] = []
    names = [SimpleNamespace(rfilename=path.name) for path in snapshot.iterdir()]

    def fetch(name: str, *, revision: str, allow_patterns: list[str]) -> str:
        fetched.append((name, revision, allow_patterns))
        return str(snapshot)

    monkeypatch.setattr(
        huggingface_hub, "model_info", lambda *_, **__: SimpleNamespace(sha=COMMIT, siblings=names)
    )
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    return fetched


@pytest.mark.parametrize("live", [False, True])
def test_a_pruned_model_is_found_by_its_plan(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    wanted = cut_into(snapshot)
    fetched = with_hub(monkeypatch, snapshot) if live else []
    if not live:
        without_hub(monkeypatch)
    loaded = load("org/name", device="cpu")
    assert (loaded.name, loaded.revision, loaded.plan is not None) == ("org/name", COMMIT, True)
    with torch.no_grad():
        assert torch.allclose(loaded.model(IDS).logits, wanted, atol=1e-5)
    assert [(name, revision) for name, revision, _ in fetched] == [("org/name", COMMIT)] * live
    assert not any(pattern.endswith(("bin", "pt", "*")) for _, _, patterns in fetched for pattern in patterns)


@pytest.mark.parametrize("live", [False, True])
def test_an_adapter_there_is_refused_by_its_name(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    (snapshot / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    if live:
        with_hub(monkeypatch, snapshot)
    else:
        without_hub(monkeypatch)
    with pytest.raises(
        ModelError, match=r"^org/name is an adapter of org/base, not a model; .*--adapter org/name"
    ):
        resolve("org/name")
