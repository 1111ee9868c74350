"""Training back: it helps, the best stays, and a killed run ends as one that was never interrupted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.errors import StopRequested, TrainingError
from core.graph.discover import discover
from core.models.load import Loaded
from core.recover import lora, train, weights
from core.recover.examples import IGNORED, Example, TrainingData
from core.recover.loop import Loop
from core.recover.lora import updates
from core.recover.team import Team, accelerator
from core.recover.train import Curve, Recovered, Recovery
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
    examples = [Example(row, row) for row in rows * 3]
    return TrainingData(examples[:26], examples[26:], "none")


def pruned(tokenizer: Any) -> tuple[Loaded, Any]:
    model = random_model(llama_config())
    graph = discover(model, name="tiny")
    operate(model, graph, {"L00.query_head": (1,), "L00.ffn_channel": (0, 3), "L01.ffn_channel": (7,)})
    loaded = Loaded(model, tokenizer, "tiny", model.config, torch.float32, torch.device("cpu"))
    return loaded, graph


def trained(tokenizer: Any, folder: Path, asked: RecoverSpec = ASKED, **told: Any) -> tuple[Any, Recovered]:
    loaded, graph = pruned(tokenizer)
    outcome = recover(loaded, graph, data(), asked, folder, **told)
    return {name: value.clone() for name, value in loaded.model.state_dict().items()}, outcome


def recover(
    loaded: Loaded,
    graph: Any,
    data: TrainingData,
    asked: RecoverSpec,
    folder: Path,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_curve: Curve = lambda name, step, value: None,
) -> Recovered:
    """All of a training, from the checkpoint if there is one."""
    training = Recovery(loaded, graph, data, asked, seed=0, on_curve=on_curve)
    precision = "no" if asked.precision == "auto" else asked.precision  # the same on every machine
    loop = Loop(training, Team(accelerator(loaded.device, precision)), folder / "recover.safetensors")
    loop.resume()
    loop.run(lambda report: None, on_progress)
    return training.finish()


def test_of_several_gpus_the_one_that_holds_the_model_is_used(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is the model's, whatever others there are: what the model reads is put there."""
    loaded, graph = pruned(tiny_tokenizer)
    training = Recovery(loaded, graph, data(), ASKED, seed=0, on_curve=lambda name, step, value: None)
    training.device = torch.device("meta")
    seen: list[torch.device] = []

    def forward(input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> Any:
        seen.extend([input_ids.device, attention_mask.device])
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, 100, device=input_ids.device))

    monkeypatch.setattr(training, "model", forward)
    loss, _ = training.loss([0, 1])
    assert {*seen, loss.device} == {torch.device("meta")}


def test_the_parts_of_a_batch_count_by_the_tokens_they_predict(tmp_path: Path, tiny_tokenizer: Any) -> None:
    """However a batch is split, its loss is the mean over all tokens that are predicted."""
    uneven = [
        Example(one.ids[: 8 + 2 * number], one.labels[: 8 + 2 * number])
        for number, one in enumerate(data().train[:4])
    ]
    uneven[0] = replace(uneven[0], labels=[IGNORED] * 6 + uneven[0].ids[6:])
    losses: dict[int, list[float]] = {4: [], 2: [], 1: []}
    for size, curve in losses.items():

        def told(name: str, step: int, value: float, curve: list[float] = curve) -> None:
            if name == "recover.loss":
                curve.append(value)

        asked = replace(ASKED, micro_batch=size, steps=4, warmup=0, dropout=0.0)
        few = TrainingData(uneven, data().held, "none")
        recover(*pruned(tiny_tokenizer), few, asked, tmp_path / str(size), on_curve=told)
    assert len(losses[4]) == 4
    assert losses[2] == pytest.approx(losses[4], rel=1e-3) and losses[1] == pytest.approx(losses[4], rel=1e-3)


def test_a_loss_that_is_no_number_is_skipped_and_many_end_the_training(
    tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = torch.nn.functional.cross_entropy, list[int]()

    def broken(*given: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        return original(*given, **options) * (math.nan if len(calls) in bad else 1.0)

    monkeypatch.setattr(train, "cross_entropy", broken)
    bad: Any = (3,)  # of the two parts of step 2, the first
    curves: dict[str, list[int]] = {}
    _, outcome = trained(
        tiny_tokenizer, tmp_path / "one",
        on_curve=lambda name, step, value: curves.setdefault(name, []).append(step),
    )  # fmt: skip
    assert curves["recover.loss"] == [1, *range(3, 13)] and outcome.held_ppl_after < outcome.held_ppl_before
    bad = range(10**6)
    with pytest.raises(TrainingError, match=r"not finite in 12 steps in a row.* lower learning_rate"):
        trained(tiny_tokenizer, tmp_path / "all")


def test_training_helps_and_is_told(tmp_path: Path, tiny_tokenizer: Any) -> None:
    curves: dict[str, list[tuple[int, float]]] = {}
    steps: list[tuple[int, int]] = []
    before = pruned(tiny_tokenizer)[0].model.state_dict()
    after, outcome = trained(
        tiny_tokenizer, tmp_path,
        on_progress=lambda done, total: steps.append((done, total)),
        on_curve=lambda name, step, value: curves.setdefault(name, []).append((step, value)),
    )  # fmt: skip
    assert outcome.held_ppl_after < outcome.held_ppl_before / 2
    assert steps == [(step, 12) for step in range(1, 13)]
    assert [step for step, _ in curves["recover.loss"]] == list(range(1, 13))
    assert [step for step, _ in curves["recover.held_ppl"]] == [0, 3, 6, 9, 12]
    assert curves["recover.held_ppl"][0][1] == outcome.held_ppl_before
    rates = [rate for _, rate in curves["recover.learning_rate"]]
    assert outcome.warmup == 1 and rates[0] == 0  # a tenth of 12 steps
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
    outcome = recover(loaded, graph, data(), ASKED, tmp_path)
    assert outcome.held_ppl_before == pytest.approx(before, rel=1e-4)
    assert outcome.held_ppl_after == pytest.approx(ppl(), rel=1e-4)


def test_the_best_updates_stay(tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured as it pleases: what was there when it was best is what is merged, not what came last."""
    measured = iter(map(math.log, [9.0, 8.0, 3.0, 7.0, 7.0, 7.0, 7.0]))
    seen: list[dict[str, torch.Tensor]] = []

    def measure(trainer: Any) -> tuple[float, None]:
        seen.append({name: value.detach().clone() for name, value in updates(trainer.model).items()})
        return next(measured), None

    monkeypatch.setattr(Recovery, "held_losses", measure)
    merged: list[dict[str, torch.Tensor]] = []
    original = lora.merge

    def merge(wrapped: Any) -> Any:
        merged.append({name: value.detach().clone() for name, value in updates(wrapped).items()})
        return original(wrapped)

    monkeypatch.setattr(weights, "merge", merge)
    _, outcome = trained(tiny_tokenizer, tmp_path, replace(ASKED, steps=6, eval_every=1))
    assert outcome.best_step == 2
    assert (outcome.held_ppl_before, outcome.held_ppl_after) == pytest.approx((9.0, 3.0))
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
    outcome = recover(loaded, graph, replace(data(), held=kept_apart), ruinous, tmp_path)
    assert outcome.best_step == 0 and outcome.held_ppl_after == outcome.held_ppl_before
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
    again, outcome = trained(tiny_tokenizer, tmp_path, RANDOM)
    assert outcome == expected
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
    again, outcome = trained(
        tiny_tokenizer, tmp_path, RANDOM, on_progress=lambda done, total: steps.append(done)
    )
    assert steps == list(range(at + 1, 13))  # no step was made twice
    assert outcome == expected and all(torch.equal(whole[name], again[name]) for name in whole)
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"recover.safetensors"}
