"""What the couplings are worth: matrices cut one by one, measured, and nothing left behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from core.criteria.scoring import score_structures
from core.errors import SpecError
from core.files import read_json
from core.graph.records import Group, Member
from core.runs import launch
from core.runs.artifacts import METRICS, MODEL
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.stages.check import check
from core.stages.worker import execute
from core.surgery.ablation import without_dependency
from tests.graph.families import build, graph_of
from tests.handmade import graph_of as handmade_graph
from tests.handmade import ids, logits, random_plan, tiny


def sliced_alone(weight: torch.Tensor, dim: int, gone: int, width: int = 1) -> torch.Tensor:
    """A matrix without its smallest blocks of rows or columns, by their own sum of |w|."""
    blocks = weight.movedim(dim, 0).unflatten(0, (-1, width))
    keep = blocks.abs().sum(dim=tuple(range(1, blocks.dim()))).argsort()[gone:].sort().values
    return blocks[keep].flatten(0, 1).movedim(0, dim)


def test_every_matrix_loses_its_own_weakest_slices() -> None:
    """The naive definition: cut gate, up and down each by itself, and run what is left."""
    model = tiny()
    graph, tokens = handmade_graph(model), ids(model)
    removed = {"L00.ffn_channel": (0, 3, 5, 21), "L01.query_head": (1,)}

    def own(group: Group) -> list[tuple[Member, np.ndarray]]:
        return score_structures(model, graph, group, "l1", None, seed=0)

    with without_dependency(model, graph, removed, own):
        got = logits(model, tokens)
    reference = tiny()
    mlp = reference.model.layers[0].mlp
    for linear, dim in ((mlp.gate_proj, 0), (mlp.up_proj, 0), (mlp.down_proj, 1)):
        linear.weight = nn.Parameter(sliced_alone(linear.weight.detach(), dim, 4))
    attention = reference.model.layers[1].self_attn
    q, o = attention.q_proj, attention.o_proj
    q_left = sliced_alone(q.weight.detach(), 0, 1, 8)
    o_left = sliced_alone(o.weight.detach(), 1, 1, 8)
    # Head 1 went by the plan, so what is left stands where heads 0, 2 and 3 stood.
    places = torch.cat([torch.arange(0, 8), torch.arange(16, 32)])
    with torch.no_grad():
        q.weight.index_copy_(0, places, q_left)
        o.weight.zero_().index_copy_(1, places, o_left)
    assert torch.allclose(got, logits(reference, tokens), atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "qwen3_moe", "qwen2"])
def test_the_model_is_as_it_was_afterwards(family: str) -> None:
    model, graph = build(family), graph_of(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    removed = random_plan(graph, 1)
    tokens = ids(model)
    dense = logits(model, tokens)
    with without_dependency(
        model, graph, removed, lambda group: score_structures(model, graph, group, "random", None, seed=0)
    ):
        assert not torch.allclose(logits(model, tokens), dense, atol=1e-3)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def ablation(model: str, text: str, **changes: object) -> RunSpec:
    return RunSpec(
        model=ModelSpec(model, "cpu"),
        calibration=DataSpec(text, samples=4, length=16),
        prune=replace(PruneSpec(without_dependency=True, sparsity=0.3), **changes),
        evaluate=EvalSpec(text, 16, 128, ("the a of",), 4),
    )


def test_an_ablation_compares_and_saves_no_model(tiny_llama_folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the a of to and in is it that for on with as was at by be this " * 40)
    run_dir = launch.create(tmp_path / "runs", ablation(str(tiny_llama_folder), str(text)), mine=True)
    execute(run_dir)
    metrics = read_json(run_dir / METRICS)
    assert metrics["without_dependency"] is True
    assert metrics["ppl_coupled"] > 0 and metrics["ppl_after"] != metrics["ppl_coupled"]
    assert 0.25 < metrics["sparsity"] < 0.35
    assert not (run_dir / MODEL).exists()


def test_criteria_that_need_their_neighbours_are_refused(tiny_llama_folder: Path) -> None:
    with pytest.raises(SpecError, match="scores every matrix by itself, and wanda"):
        check(ablation(str(tiny_llama_folder), "bundled", method="wanda"))


@pytest.mark.slow
def test_perplexity_explodes_without_dependency(tmp_path: Path) -> None:
    """LLM-Pruner, Table 6, on the demo model."""
    spec = RunSpec(
        model=ModelSpec("demo", "cpu"),
        prune=PruneSpec(without_dependency=True, sparsity=0.2, layers="3:29"),
        evaluate=EvalSpec(tokens=2048, prompts=(), efficiency=False),
    )
    run_dir = launch.create(tmp_path, spec, mine=True)
    execute(run_dir)
    metrics = read_json(run_dir / METRICS)
    assert metrics["ppl_after"] > 100 * metrics["ppl_coupled"] > 100 * metrics["ppl_before"]
