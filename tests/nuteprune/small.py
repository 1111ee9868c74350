"""A tiny grouped-query model under training, as the tests of this folder use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from core.graph.records import Graph
from core.nuteprune.gates import Gates
from core.nuteprune.training import MaskTraining, Report
from core.nuteprune.twin import Twin
from core.plan.allocation import groups_in_scope
from core.recover.loop import Loop
from core.recover.team import Team, accelerator
from core.spec.nuteprune import Settings
from tests.handmade import graph_of, ids, tiny

KINDS = ("query_head", "ffn_channel")


class Trainer(Loop[Report]):
    """A loop whose training is NutePrune's."""

    training: MaskTraining


def settings(**changes: Any) -> Settings:
    """Options for a run of a few steps, without mixed precision."""
    short = {"steps": 8, "batch": 2, "precision": "no", "lora_rank": 2, "gap": 0.05, "interval": 0.02}
    return Settings(**{**short, **changes})


def of_model(
    model: PreTrainedModel,
    graph: Graph,
    asked: Settings,
    folder: Path,
    kinds: tuple[str, ...] = KINDS,
    *,
    sparsity: float = 0.3,
    second: PreTrainedModel | None = None,
) -> Trainer:
    """A trainer of this model on random tokens."""
    groups = groups_in_scope(graph, kinds)
    gates = Gates(groups, asked.start)
    torch.manual_seed(0)
    twin = Twin(model, graph, gates, rank=asked.lora_rank, alpha=asked.lora_alpha, targets=asked.lora_targets)
    training = MaskTraining(
        twin, gates, graph, groups, ids(model, batch=6), asked,
        allocation={"sparsity": sparsity, "kinds": kinds}, seed=0, folder=folder, second=second,
    )  # fmt: skip
    return Trainer(
        training, Team(accelerator(model.device, asked.precision)), folder / "training.safetensors"
    )


def trainer(
    folder: Path,
    *,
    family: str = "llama",
    kinds: tuple[str, ...] = KINDS,
    sparsity: float = 0.3,
    **changes: Any,
) -> Trainer:
    """A trainer of a tiny model on random tokens."""
    asked, model = settings(**changes), tiny(family)
    second = tiny(family) if asked.distillation == "second_model" else None
    return of_model(model, graph_of(model), asked, folder, kinds, sparsity=sparsity, second=second)
