"""A model whose weights rest on a second device says, scores and is cut as one that is all in one place."""

from __future__ import annotations

import copy
import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from core.capture.divergence import similarity
from core.criteria.scoring import score_units
from core.devices.lending import DISK, Spread, rest, spread_of
from core.errors import StorageError
from core.evaluate.perplexity import perplexity
from core.graph.discover import discover
from core.graph.records import Graph
from core.models.saved import load, save
from core.plan.allocation import allocate
from core.plan.cost import with_costs
from core.plan.records import PruningPlan
from core.recover.reconstruct import reconstruct, reconstructed
from core.recover.rescoring import Rescoring
from core.surgery.masks import masked
from core.surgery.operate import operate
from tests.devices.two_devices import AWAY, is_away, two_devices
from tests.graph.families import graph_of, model_of
from tests.handmade import ids, logits

#: Grouped queries with tied weights, Conv1D with biases and norms that subtract the mean, experts in stacks.
FAMILIES = ("llama_tied", "gpt2", "mixtral")
KINDS = ("query_head", "ffn_channel", "residual_channel")
WINDOWS = torch.randint(3, 60, (8, 16), generator=torch.Generator().manual_seed(0))


def spread_over(model: PreTrainedModel, place: str) -> Spread:
    """All but the first third of the parameters away, so that a layer is taken apart."""
    names = [name for name, _ in model.named_parameters()]
    return Spread("cpu", dict.fromkeys(names[len(names) // 3 :], place))


def resting(family: str, place: str = AWAY) -> PreTrainedModel:
    """A model of which two thirds rest elsewhere."""
    model = copy.deepcopy(model_of(family, None))
    rest(model, spread_over(model, place))
    return model


def third_of(graph: Graph, kinds: tuple[str, ...] = KINDS) -> PruningPlan:
    """The first third of the units of every group."""
    groups = [group for group in graph.of_kind(*kinds) if group.prunable and group.units > 2]
    removed = {group.id: tuple(range(group.units // 3)) for group in groups}
    return with_costs(graph, PruningPlan(removed, graph.model), groups)


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_lent_and_taken_back(family: str) -> None:
    model, tokens = model_of(family, None), ids(model_of(family, None))
    expected = logits(model, tokens)
    with two_devices() as devices:
        away = resting(family)
        names = [name for name, _ in away.named_parameters() if is_away(devices, away, name)]
        assert torch.equal(logits(away, tokens), expected)
        assert names == [name for name, _ in away.named_parameters() if is_away(devices, away, name)]
        written = [m.generate(tokens[:1], max_new_tokens=4, do_sample=False) for m in (model, away)]
        assert len(names) > 5 and torch.equal(*written)
    assert spread_of(model) is None and spread_of(away) is not None


def test_a_forward_that_fails_leaves_every_weight_where_it_rests() -> None:
    with two_devices() as devices:
        away = resting("llama_tied")
        last = away.model.layers[1].mlp.down_proj

        def fail(*_: object) -> None:
            raise RuntimeError("on purpose")

        handle = last.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            logits(away, ids(away))
        handle.remove()
        assert is_away(devices, away, "model.layers.1.mlp.down_proj.weight")
        assert torch.equal(logits(away, ids(away)), logits(model_of("llama_tied", None), ids(away)))


@pytest.mark.parametrize("family", FAMILIES)
def test_graph_scores_and_plan_are_the_same(family: str) -> None:
    """Forward-only criteria, on a layer that is taken apart; of stacked experts, what reads weights."""
    graph, criteria = graph_of(family), ("l2",) if family == "mixtral" else ("wifv", "wanda", "l2")

    def told(model: PreTrainedModel) -> tuple[Graph, dict[str, dict[str, np.ndarray]], float, np.ndarray]:
        scores = {name: score_units(model, graph, name, WINDOWS, kinds=KINDS[:2]) for name in criteria}
        scores["l2 of all"] = score_units(model, graph, "l2", None, kinds=KINDS)
        heads = similarity(model, graph, WINDOWS[:2], text="text")
        return discover(model, name=family), scores, perplexity(model, WINDOWS).ppl, heads.divergence

    there = told(copy.deepcopy(model_of(family, None)))
    with two_devices():
        here = told(resting(family))
    assert replace(here[0], seconds=0.0) == replace(there[0], seconds=0.0)
    assert here[2] == pytest.approx(there[2], rel=1e-6) and np.array_equal(here[3], there[3])
    for name, groups in there[1].items():
        for group, values in groups.items():
            assert np.allclose(here[1][name][group], values, rtol=1e-5), (name, group)
    plans = [allocate(graph, told[1][criteria[0]], sparsity=0.3) for told in (here, there)]
    assert plans[0] == plans[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_masked_equals_sliced_equals_saved(family: str, tmp_path: Path) -> None:
    graph, plan, tokens = graph_of(family), third_of(graph_of(family)), ids(model_of(family, None))
    with masked(model_of(family, None), graph, plan.removed):
        expected = logits(model_of(family, None), tokens)
    with two_devices() as devices:
        away = resting(family)
        with masked(away, graph, plan.removed):
            assert torch.allclose(logits(away, tokens), expected, atol=1e-5)
        small = operate(away, graph, plan.removed)
        assert (logits(small, tokens) - expected).abs().max() < 1e-4
        assert any(is_away(devices, small, name) for name, _ in small.named_parameters())
        rows = save(small, None, graph, plan, tmp_path / "model", facts={})
        assert all(row.holds for row in rows)
    assert (logits(load(tmp_path / "model")[0], tokens) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("how", ["bias", "least_squares", "pre_pruning", "pre_pruning_refit"])
def test_what_stays_is_refitted_alike(how: str) -> None:
    family, again = "gpt2", Rescoring("wifv")
    graph, plan = graph_of(family), third_of(graph_of(family), KINDS[:2])

    def refitted(model: PreTrainedModel) -> dict[str, torch.Tensor]:
        names = reconstruct(model, graph, plan, WINDOWS, how=how, rescoring=again).changed
        return {name: model.get_parameter(name).detach().to("cpu") for name in sorted(names)}

    expected = refitted(copy.deepcopy(model_of(family, None)))
    with two_devices():
        away = resting(family)
        before = logits(away, ids(away))
        with reconstructed(away, graph, plan, WINDOWS, how=how, rescoring=again):
            assert not torch.equal(logits(away, ids(away)), before)
        assert torch.equal(logits(away, ids(away)), before)
        there = refitted(away)
    assert there.keys() == expected.keys() and expected
    assert all(torch.allclose(there[name], value, atol=1e-5) for name, value in expected.items())


def test_files_hold_the_weights_and_nobody_sees_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model, tokens = model_of("llama_tied", None), ids(model_of("llama_tied", None))
    away = resting("llama_tied", DISK)
    assert not list(tmp_path.iterdir()) and torch.equal(logits(away, tokens), logits(model, tokens))
    assert away.lm_head.weight is away.model.embed_tokens.weight
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    assert mapped and all("(deleted)" in line for line in mapped)
    del away
    gc.collect()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_a_full_disk_is_said_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(StorageError, match=r"no room .*No space left.* set TMPDIR .* --max-memory"):
        resting("llama_tied", DISK)
