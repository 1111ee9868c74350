"""Training back: it helps, the best stays, and a killed run ends as one that was never interrupted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.training_args import ParallelMode

from core.errors import StopRequested
from core.graph.discover import discover
from core.models.load import Loaded
from core.recover import lora, train
from core.recover.examples import Example, TrainingData
from core.recover.lora import updates
from core.recover.train import Recovered, _arguments, recover
from core.spec.recover import RecoverSpec
from core.surgery.operate import operate
from tests.conftest import llama_config, random_model

#: A text in which every token follows from the one before: easy to learn.
CHAIN = [5, 9, 17, 3, 40, 22, 8, 60, 33, 11]
ASKED = RecoverSpec(
    "lora", rank=4, learning_rate=5e-2, warmup=2, steps=12, batch=4, micro_batch=2, eval_every=3, length=20
)


def data() -> TrainingData:
    rows = [[CHAIN[(start + i) % 10] for i in range(20)] for start in range(10)]
    found = [Example(row, row) for row in rows * 3]
    return TrainingData(found[:26], found[26:], "none")


def pruned(tokenizer: Any) -> tuple[Loaded, Any]:
    model = random_model(llama_config())
    graph = discover(model, name="tiny")
    operate(model, graph, {"L00.query_head": (1,), "L00.ffn_channel": (0, 3), "L01.ffn_channel": (7,)})
    loaded = Loaded(model, tokenizer, "tiny", model.config, torch.float32, torch.device("cpu"))
    return loaded, graph


def trained(tokenizer: Any, folder: Path, asked: RecoverSpec = ASKED, **told: Any) -> tuple[Any, Recovered]:
    loaded, graph = pruned(tokenizer)
    found = recover(loaded, graph, data(), asked, folder / "recover", **told)
    return {name: value.clone() for name, value in loaded.model.state_dict().items()}, found


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_of_several_gpus_the_one_that_holds_the_model_is_used(
    device: str, tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    current: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    loaded = replace(pruned(tiny_tokenizer)[0], device=torch.device(device))
    arguments = _arguments(ASKED, loaded, tmp_path, 4, 0)
    assert (arguments.n_gpu, arguments.device) == (1, torch.device(device))
    assert arguments.parallel_mode == ParallelMode.NOT_PARALLEL and arguments.train_batch_size == 2
    assert device == "cuda" or current[-1] == torch.device(device)


def test_training_helps_and_is_told(tmp_path: Path, tiny_tokenizer: Any) -> None:
    curves: dict[str, list[tuple[int, float]]] = {}
    steps: list[tuple[int, int]] = []
    before = pruned(tiny_tokenizer)[0].model.state_dict()
    after, found = trained(
        tiny_tokenizer, tmp_path,
        on_progress=lambda done, total: steps.append((done, total)),
        on_curve=lambda name, step, value: curves.setdefault(name, []).append((step, value)),
    )  # fmt: skip
    assert found.held_ppl_after < found.held_ppl_before / 2
    assert steps == [(step, 12) for step in range(1, 13)]
    assert [step for step, _ in curves["recover.loss"]] == list(range(1, 13))
    assert [step for step, _ in curves["recover.held_ppl"]] == [0, 3, 6, 9, 12]
    assert curves["recover.held_ppl"][0][1] == found.held_ppl_before
    rates = [rate for _, rate in curves["recover.learning_rate"]]
    assert found.warmup == 1 and rates[0] == 0  # a tenth of 12 steps
    assert rates[1] == 0.05 and rates[1:] == sorted(rates[1:], reverse=True)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed and all("proj" in name for name in changed) and len(changed) == 14


def test_loss_and_perplexity_are_what_they_say(tmp_path: Path, tiny_tokenizer: Any) -> None:
    """The first held perplexity is that of the pruned model, the last that of the merged one."""
    loaded, graph = pruned(tiny_tokenizer)

    def ppl() -> float:
        total = count = 0.0
        for one in data().held:
            ids = torch.tensor([one.ids])
            with torch.no_grad():
                logits = loaded.model(ids).logits[0, :-1]
            total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
            count += len(one.ids) - 1
        return math.exp(total / count)

    before = ppl()
    found = recover(loaded, graph, data(), ASKED, tmp_path / "recover")
    assert found.held_ppl_before == pytest.approx(before, rel=1e-4)
    assert found.held_ppl_after == pytest.approx(ppl(), rel=1e-4)


def test_the_best_updates_stay(tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured as it pleases: what was there when it was best is what is merged, not what came last."""
    measured = iter([9.0, 8.0, 3.0, 7.0, 7.0, 7.0, 7.0])
    seen: list[dict[str, torch.Tensor]] = []

    def measure(trainer: Any) -> float:
        seen.append({name: value.detach().clone() for name, value in updates(trainer.model).items()})
        return next(measured)

    monkeypatch.setattr(train._Recovery, "_held_perplexity", measure)
    merged: list[dict[str, torch.Tensor]] = []
    original = lora.merge

    def merge(wrapped: Any) -> Any:
        merged.append({name: value.detach().clone() for name, value in updates(wrapped).items()})
        return original(wrapped)

    monkeypatch.setattr(train, "merge", merge)
    _, found = trained(tiny_tokenizer, tmp_path, replace(ASKED, steps=6, eval_every=1))
    assert (found.best_step, found.held_ppl_before, found.held_ppl_after) == (2, 9.0, 3.0)
    assert all(torch.equal(value, seen[2][name]) for name, value in merged[0].items())
    assert any(not torch.equal(value, seen[-1][name]) for name, value in merged[0].items())


def test_nothing_helped_leaves_the_model_as_it_was(tmp_path: Path, tiny_tokenizer: Any) -> None:
    loaded, graph = pruned(tiny_tokenizer)
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    own = loaded.model.generate(
        torch.tensor([[7]]), max_new_tokens=19, min_new_tokens=19, do_sample=False, pad_token_id=0
    )[0].tolist()
    kept_apart = [Example(own, own)]  # what the model says by itself, and training takes from it
    ruinous = replace(ASKED, steps=2, eval_every=1)
    found = recover(loaded, graph, replace(data(), held=kept_apart), ruinous, tmp_path / "recover")
    assert found.best_step == 0 and found.held_ppl_after == found.held_ppl_before
    assert all(torch.equal(before[name], value) for name, value in loaded.model.state_dict().items())


class Killed(BaseException):
    """Stands for the end of the process: nobody gets to write anything."""


#: Dropout draws random numbers; an epoch has 7 steps, and checkpoints are written every 3.
RANDOM = replace(ASKED, dropout=0.2)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> tuple[Any, Recovered]:
    return trained(tiny_tokenizer, tmp_path_factory.mktemp("whole"), RANDOM)


@pytest.mark.parametrize("at", [2, 8, 12])
def test_killed_at_any_step_and_resumed_ends_the_same(
    tmp_path: Path, tiny_tokenizer: Any, uninterrupted: tuple[Any, Recovered], at: int
) -> None:
    whole, expected = uninterrupted

    def kill(done: int, total: int) -> None:
        if done == at:
            raise Killed

    with pytest.raises(Killed):
        trained(tiny_tokenizer, tmp_path, RANDOM, on_progress=kill)
    again, found = trained(tiny_tokenizer, tmp_path, RANDOM)
    assert found == expected
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize("at", [7, 12])
def test_a_stop_finishes_the_step_and_keeps_it(
    tmp_path: Path, tiny_tokenizer: Any, uninterrupted: tuple[Any, Recovered], at: int
) -> None:
    whole, expected = uninterrupted

    def stop(done: int, total: int) -> None:
        if done == at:
            raise StopRequested("enough")

    with pytest.raises(StopRequested, match="enough"):
        trained(tiny_tokenizer, tmp_path, RANDOM, on_progress=stop)
    steps: list[int] = []
    again, found = trained(
        tiny_tokenizer, tmp_path, RANDOM, on_progress=lambda done, total: steps.append(done)
    )
    assert steps == list(range(at + 1, 13))  # no step was made twice
    assert found == expected and all(torch.equal(whole[name], again[name]) for name in whole)
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"trainer_state.json", "facts.json", "tensors.safetensors"}
