"""What the couplings are worth: matrices cut one by one, measured, and nothing left behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from core.criteria.scoring import score_structures
from core.errors import SpecError, StopRequested
from core.files import read_json
from core.graph.records import Group, Member
from core.results.perplexity import read_perplexities
from core.runs import launch
from core.runs.artifacts import CHECKPOINT, EVENTS, METRICS, MODEL
from core.runs.events import Event, EventReader, metric_series
from core.runs.status import Status, write_status
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
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


def test_both_cuts_are_trained_and_measured_before_and_after(tiny_llama_folder: Path, tmp_path: Path) -> None:
    """LLM-Pruner, Table 6: with and without dependency, without and with tuning; stopped in between, too."""
    text = tmp_path / "text.txt"
    text.write_text("the a of to and in is it that for on with as was at by be this " * 40)
    recipe = RecoverSpec(
        "lora", str(text), learning_rate=1e-2, warmup=1, steps=4, batch=4, length=32, eval_every=2, held=4
    )
    asked = replace(ablation(str(tiny_llama_folder), str(text)), recover=recipe)
    check(asked)
    run_dir = launch.create(tmp_path / "runs", asked, mine=True)
    execute(run_dir)
    metrics, kept = read_json(run_dir / METRICS), read_perplexities(run_dir)
    sides = ("ppl_coupled", "ppl_coupled_recovered", "ppl_pruned", "ppl_recovered")
    assert len({metrics[side] for side in sides}) == 4 and metrics["ppl_after"] == metrics["ppl_recovered"]
    assert metrics["ppl_coupled_recovered"] < metrics["ppl_coupled"]
    assert {"coupled", "coupled_recovered", "pruned", "recovered"} <= set(kept)
    plain = launch.create(tmp_path / "runs", ablation(str(tiny_llama_folder), str(text)), mine=True)
    execute(plain)
    masked_alone = read_json(plain / METRICS)
    assert metrics["ppl_pruned"] == pytest.approx(masked_alone["ppl_after"], rel=1e-4), "sliced, not masked"
    assert metrics["ppl_coupled"] == masked_alone["ppl_coupled"]
    assert not (run_dir / MODEL).exists() and not (run_dir / CHECKPOINT / "coupled").exists()
    series = metric_series(EventReader(run_dir / EVENTS).read())
    assert (
        [step for step, _ in series["coupled.held_ppl"]]
        == [0, 2, 4]
        == [step for step, _ in series["recover.held_ppl"]]
    )


def test_a_resumed_ablation_does_not_train_the_coupled_cut_again(
    tiny_llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the a of to and in is it that for on with as was at by be this " * 40)
    recipe = RecoverSpec("lora", str(text), warmup=1, steps=2, batch=4, length=32, eval_every=2, held=4)
    asked = replace(ablation(str(tiny_llama_folder), str(text)), recover=recipe)
    run_dir = launch.create(tmp_path / "runs", asked, mine=True)

    def stop_there(event: Event) -> None:
        if event.type == "stage" and event.stage == "cut_alone":
            raise StopRequested("here")

    with pytest.raises(StopRequested):
        execute(run_dir, stop_there)
    monkeypatch.setattr("core.stages.ablate._trained_coupled", lambda _: pytest.fail("it is kept"))
    write_status(run_dir, Status(created=1.0))
    execute(run_dir)
    assert read_json(run_dir / METRICS)["ppl_coupled_recovered"] > 0


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
