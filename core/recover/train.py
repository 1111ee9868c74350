"""The training itself: transformers' Trainer on low-rank updates, the best of them merged at the end.

Some sequences are kept apart and measured every few steps: the perplexity on them falls, then rises where
the model learns its data by heart (LLM-Pruner, Figure 5 and Table 15), and the updates that did best stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from core.errors import StopRequested
from core.evaluate.perplexity import window_losses
from core.graph.records import Graph
from core.models.load import Loaded
from core.recover import checkpoint
from core.recover.examples import IGNORED, Example, TrainingData, collate
from core.recover.lora import attach, merge, updates
from core.spec.recover import RecoverSpec

#: Told (steps done, steps in all); may raise StopRequested.
Progress = Callable[[int, int], None]
#: Told (name of a curve, step, value).
Curve = Callable[[str, int, float], None]


@dataclass
class Best:
    """The updates that did best on the sequences kept apart; `first` is the perplexity before training."""

    ppl: float = math.inf
    step: int = 0
    first: float = math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """All but the weights, as JSON."""
        return {"ppl": self.ppl, "step": self.step, "first": self.first}


@dataclass(frozen=True)
class Recovered:
    """How training went.

    Attributes:
        steps: optimizer steps taken; best_step: the one whose updates were merged, 0 = none helped.
        held_ppl_before, held_ppl_after: perplexity on the sequences kept apart, untrained and merged.
        trained: numbers that were trained; warmup: steps of warm-up, shortened to a tenth of a short run.
    """

    steps: int
    best_step: int
    held_ppl_before: float
    held_ppl_after: float
    trained: int
    warmup: int


def recover(
    loaded: Loaded,
    graph: Graph,
    data: TrainingData,
    asked: RecoverSpec,
    folder: Path,
    *,
    seed: int = 0,
    on_progress: Progress | None = None,
    on_curve: Curve | None = None,
) -> Recovered:
    """Train a pruned model in place; go on from the checkpoint in `folder` if there is one.

    Args:
        graph: of the dense model; names of modules do not change by pruning.
        folder: where checkpoints are kept, one at a time.
        on_progress: told after every step. Where it raises StopRequested, a checkpoint is written first.

    Raises:
        InputError: no matrix of the kind asked for.
        StopRequested: from `on_progress`; the model is of no use then, the checkpoint is.
        StorageError: a checkpoint cannot be written.
    """
    torch.manual_seed(seed)
    wrapped = attach(
        loaded.model, graph, rank=asked.rank, alpha=asked.alpha, targets=asked.targets, dropout=asked.dropout
    )
    steps = asked.steps or asked.epochs * math.ceil(len(data.train) / asked.batch)
    trainer = _Recovery(wrapped, loaded, data, _arguments(asked, loaded, folder, steps, seed), asked, folder)
    watcher = _Watcher(trainer, asked.eval_every, on_progress or (lambda done, total: None))
    trainer.on_curve = on_curve or (lambda name, step, value: None)
    trainer.add_callback(watcher)
    _train(trainer, folder, steps)
    if watcher.stopped is not None:
        raise watcher.stopped
    best, trained = trainer.best, sum(value.numel() for value in updates(wrapped).values())
    _assign(wrapped, best.weights)
    merge(wrapped)
    return Recovered(steps, best.step, best.first, best.ppl, trained, trainer.args.get_warmup_steps(steps))


def _train(trainer: _Recovery, folder: Path, steps: int) -> None:
    """Train to the end, from the start or from where a checkpoint stands; past the end there is nothing."""
    facts = checkpoint.read_facts(folder)
    if facts is None:
        trainer.look()
        trainer.train()
        return
    trainer.best = Best(**facts["best"], weights=checkpoint.read_parts(folder)["best"])
    if facts["step"] < steps:
        trainer.train(resume_from_checkpoint=str(folder))


def _arguments(asked: RecoverSpec, loaded: Loaded, folder: Path, steps: int, seed: int) -> TrainingArguments:
    device = loaded.device
    arguments = TrainingArguments(
        output_dir=str(folder.parent),
        max_steps=steps,
        learning_rate=asked.learning_rate,
        warmup_steps=min(asked.warmup, steps // 10),
        per_device_train_batch_size=asked.micro_batch,
        gradient_accumulation_steps=asked.batch // asked.micro_batch,
        optim="adamw_torch",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device.type == "cuda",
        use_cpu=device.type == "cpu",
        seed=seed,
        data_seed=seed,
    )
    # One model on the device it is on: never copied onto several GPUs, nor moved to the first.
    arguments._n_gpu = min(1, arguments.n_gpu)
    arguments.__dict__["_setup_devices"] = device
    if device.index is not None:
        torch.cuda.set_device(device)
    return arguments


class _Recovery(Trainer):
    """Trainer with our measure of quality, our curves and our checkpoints."""

    def __init__(
        self,
        wrapped: Any,
        loaded: Loaded,
        data: TrainingData,
        arguments: TrainingArguments,
        asked: RecoverSpec,
        folder: Path,
    ) -> None:
        padding = loaded.tokenizer.pad_token_id or 0
        self.collate: Callable[[list[Example]], dict[str, Tensor]] = partial(collate, padding=padding)
        self.held, self.folder, self.best = data.held, folder, Best()
        self.on_curve: Curve = lambda name, step, value: None
        super().__init__(wrapped, arguments, data_collator=self.collate, train_dataset=data.train)
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def look(self) -> float:
        """Perplexity on the sequences kept apart; the updates are remembered if none did better."""
        step, ppl = self.state.global_step, self._held_perplexity()
        self.on_curve("recover.held_ppl", step, ppl)
        if not self.best.weights:
            self.best.first = ppl
        if not self.best.weights or ppl < self.best.ppl:
            copies = {name: value.detach().clone() for name, value in updates(self.model).items()}
            self.best = Best(ppl, step, self.best.first, copies)
        return ppl

    @torch.no_grad()
    def _held_perplexity(self) -> float:
        model: Any = self.model
        model.eval()
        total, count = 0.0, 0
        size = self.args.per_device_train_batch_size
        for first in range(0, len(self.held), size):
            batch = {k: v.to(model.device) for k, v in self.collate(self.held[first : first + size]).items()}
            labels = batch.pop("labels")
            total += sum(window_losses(model(**batch, use_cache=False).logits, labels))
            count += int((labels[:, 1:] != IGNORED).sum())
        return math.exp(min(total / count, 700.0))

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """What Trainer calls where the callback asks for an evaluation."""
        return {"eval_ppl": self.look()}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Loss and learning rate of a step, as points of curves."""
        for key, name in (("loss", "recover.loss"), ("learning_rate", "recover.learning_rate")):
            if key in logs:
                self.on_curve(name, self.state.global_step, float(logs[key]))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        assert self.lr_scheduler is not None, "Trainer makes it before the first step"
        parts = {
            "weights": updates(self.model),
            "best": self.best.weights,
            "optimizer": checkpoint.optimizer_tensors(self.optimizer),
            "random": checkpoint.random_states(),
        }
        scheduler = {**self.lr_scheduler.state_dict(), "lr_lambdas": [None]}
        state = {**vars(self.state), "stateful_callbacks": {}}
        facts = {"step": self.state.global_step, "best": self.best.facts(), "scheduler": scheduler}
        checkpoint.save(self.folder, parts, state, facts)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._parts = checkpoint.read_parts(Path(resume_from_checkpoint))
        _assign(self.model, self._parts["weights"])

    def _load_optimizer_and_scheduler(self, checkpoint_folder: str | None) -> None:
        facts = checkpoint.read_facts(self.folder)
        if checkpoint_folder is None or facts is None:
            return
        assert self.optimizer is not None and self.lr_scheduler is not None, "Trainer makes both before"
        checkpoint.restore_optimizer(self.optimizer, self._parts["optimizer"])
        self.lr_scheduler.load_state_dict(facts["scheduler"])
        for group, rate in zip(self.optimizer.param_groups, facts["scheduler"]["_last_lr"], strict=True):
            group["lr"] = rate

    def _load_rng_state(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is not None:
            checkpoint.restore_random(self._parts["random"])


class _Watcher(TrainerCallback):
    """Asks for evaluations and checkpoints, tells of progress, and stops training between two steps."""

    def __init__(self, trainer: _Recovery, every: int, on_progress: Progress) -> None:
        self.trainer, self.every, self.on_progress = trainer, every, on_progress
        self.stopped: StopRequested | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Decide what follows this step: Trainer logs, evaluates and saves after this call."""
        last = state.global_step >= state.max_steps
        control.should_evaluate = last or state.global_step % self.every == 0
        control.should_save = control.should_evaluate
        try:
            self.on_progress(state.global_step, state.max_steps)
        except StopRequested as error:
            self.stopped = error
            control.should_save = control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Trainer looks again here for what was asked for after the last step, which is done already."""
        control.should_evaluate = control.should_save = False


def _assign(wrapped: Any, weights: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in updates(wrapped).items():
            value.copy_(weights[name])
