"""Small pruned models, saved and written as GGUF, beside what torch computes with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.graph.discover import discover
from core.models.saved import save
from core.plan.cost import with_costs
from core.plan.records import PruningPlan
from core.ship import gguf
from core.ship.records import Parcel, Subject
from core.spec.export import ExportSpec
from core.surgery.operate import operate
from tests.handmade import ids, tiny
from tests.ship.llama import Llama

#: One head of a pair goes, two of different pairs, and widths that are no whole blocks.
RAGGED = {"L00.query_head": (0,), "L01.query_head": (1, 2), "L00.ffn_channel": (3, 4, 5)}


def parcel(
    folder: Path, family: str, removed: dict[str, tuple[int, ...]], **changes: Any
) -> tuple[Any, Parcel]:
    """A model that was cut, in weights that 16 bits hold, and what its writer is given."""
    options = {name: changes.pop(name) for name in ("to", "type", "pad", "uneven_heads", "tokenizer")
               if name in changes}  # fmt: skip
    model = tiny(family, **changes)
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
    graph = discover(model)
    plan = with_costs(graph, PruningPlan(removed, "tiny", "l2"), graph.of_kind("query_head", "ffn_channel"))
    subject = Subject(graph, plan, model.config.to_dict())
    model = operate(model, graph, removed)
    save(model, None, graph, plan, folder / "model", facts={})
    (folder / "out").mkdir()
    spec = ExportSpec(**{"to": "gguf", **options})
    return model, Parcel(subject, folder / "model", folder / "out", spec, False, print, lambda *_: None)


def written(
    folder: Path, family: str, removed: dict[str, tuple[int, ...]], **changes: Any
) -> tuple[Any, Path]:
    """A model, and the GGUF file that was written of it."""
    model, given = parcel(folder, family, removed, **changes)
    gguf.write(given)
    return model, next((folder / "out").iterdir())


def prompt(model: Any, length: int) -> list[int]:
    """Token ids, (length,)."""
    tokens: list[int] = ids(model)[0].tolist()
    return (tokens * length)[:length]


@torch.no_grad()
def fallen_behind(model: Any, tokens: list[int], chosen: list[int]) -> Tensor:
    """How far the logit of every token that llama.cpp chose lies below torch's largest, (tokens,)."""
    logits = model(torch.tensor([tokens + chosen])).logits[0, len(tokens) - 1 : -1]
    return logits.max(-1).values - logits.gather(1, torch.tensor(chosen)[:, None])[:, 0]


@torch.no_grad()
def divergence(model: Any, path: Path, length: int, context: int = 128) -> float:
    """The largest KL divergence of llama.cpp's next tokens from torch's, over all places of a prompt."""
    tokens = prompt(model, length)
    theirs = torch.from_numpy(Llama(path, context).decode(tokens)).double().log_softmax(-1)
    ours: Tensor = model(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
    return float((ours.exp() * (ours - theirs)).sum(-1).max())
