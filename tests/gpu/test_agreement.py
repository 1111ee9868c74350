"""A card and the CPU say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from core.capture import fused
from core.capture.divergence import js_distances, similarity
from core.capture.statistics import capture
from core.criteria import CRITERIA, scoring
from core.graph.discover import discover
from core.models.load import Loaded, load
from core.plan.allocation import allocate
from tests.gpu.conftest import FAMILIES

pytestmark = pytest.mark.gpu
KINDS = ("query_head", "ffn_channel")


def loaded(folder: Path, device: str) -> Loaded:
    return load(str(folder), device=device, dtype="float32")


def windows() -> torch.Tensor:
    return torch.randint(4, 128, (4, 32), generator=torch.Generator().manual_seed(0))


def scores(model: Loaded) -> dict[str, Any]:
    graph = discover(model.model, name="tiny")
    names = [name for name in CRITERIA.names() if not CRITERIA[name].channels]
    needs = {need for name in names for need in CRITERIA[name].needs}
    captured = capture(model.model, graph, windows(), needs=needs, kinds=KINDS)
    return dict(scoring.score(model.model, graph, names, captured, seed=0, kinds=KINDS))


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "mixtral"])
def test_scores_rank_alike_and_plans_are_equal(family: str, device: str, folders: dict[str, Path]) -> None:
    on_cpu, on_card = (loaded(folders[family], where) for where in ("cpu", device))
    graph = discover(on_cpu.model, name="tiny")
    ours, theirs = scores(on_cpu), scores(on_card)
    for name, groups in ours.items():
        for group, values in groups.items():
            if len(values) > 2 and np.ptp(values) > 0:
                assert spearmanr(values, theirs[name][group]).statistic >= 0.999, (name, group)
        plans = [allocate(graph, each[name], sparsity=0.3, kinds=KINDS) for each in (ours, theirs)]
        removed = [{(g, unit) for g, units in plan.removed.items() for unit in units} for plan in plans]
        assert len(removed[0] ^ removed[1]) <= 2, name  # two units that are tied may take turns


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_are_as_far_apart(family: str, device: str, folders: dict[str, Path]) -> None:
    found = [
        similarity(each.model, discover(each.model, name="tiny"), windows(), text="random")
        for each in (loaded(folders[family], "cpu"), loaded(folders[family], device))
    ]
    assert np.allclose(found[0].divergence, found[1].divergence, atol=1e-5, equal_nan=True)


def test_distances_of_long_windows_are_the_same(device: str) -> None:
    torch.manual_seed(0)
    attention = torch.randn(2, 8, 128, 128).softmax(-1)
    counted = torch.rand(2, 128) > 0.1
    ours, theirs = js_distances(attention, counted), js_distances(attention.to(device), counted.to(device))
    assert torch.allclose(ours / counted.sum(), theirs.cpu() / counted.sum(), atol=1e-5)


def test_distances_in_one_kernel_are_the_same(device: str) -> None:
    if device == "cpu":
        pytest.skip("for a CPU the slow tests compile it")
    torch.manual_seed(0)
    for heads, length in ((8, 128), (12, 200)):
        attention, counted = torch.randn(2, heads, length, length).softmax(-1), torch.rand(2, length) > 0.1
        attention[:, 1] = attention[:, 0]
        ours = js_distances(attention, counted)
        theirs = fused.distances(attention.to(device), counted.to(device)).cpu()
        assert torch.allclose(ours.triu(1) / counted.sum(), theirs / counted.sum(), atol=1e-5)
        assert theirs[0, 1] == 0
