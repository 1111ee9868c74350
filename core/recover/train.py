"""What a step of recovery is: low-rank updates learn the data, and the best of them are merged at the end.

Some sequences are kept apart and measured every few steps: the perplexity on them falls, then rises where
the model learns its data by heart, and the updates that did best stay. Texts that nobody trains on are
followed beside them (LLM-Pruner, Figure 5 and Table 15), and choose nothing: a text that chose is no measure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from core.evaluate.perplexity import perplexity, window_losses
from core.graph.records import Graph
from core.models.load import Loaded
from core.recover.examples import IGNORED, Example, TrainingData, collate
from core.recover.loop import Course, Outcome
from core.recover.lora import attach, merge, updates
from core.spec.recover import RecoverSpec

#: Told (name of a curve, step, value).
Curve = Callable[[str, int, float], None]


@dataclass(frozen=True)
class Best:
    """How the best updates did on the sequences kept apart; `first` is the perplexity before training."""

    ppl: float = math.inf
    step: int = 0
    first: float = math.inf


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


class LoraTraining:
    """Low-rank updates of a pruned model under training; see `core.recover.loop.Training`.

    Args:
        loaded: the model, which is trained in place and of no use before `finish`.
        graph: of the dense model; names of modules do not change by pruning.
        watched: texts to follow: name -> windows, (windows, window).

    Raises:
        InputError: no matrix of the kind asked for.
    """

    rates = "learning_rate"

    def __init__(
        self,
        loaded: Loaded,
        graph: Graph,
        data: TrainingData,
        recipe: RecoverSpec,
        *,
        seed: int,
        on_curve: Curve,
        watched: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.watched = watched or {}
        torch.manual_seed(seed)
        self.model = attach(
            loaded.model, graph,
            rank=recipe.rank, alpha=recipe.alpha, targets=recipe.targets, dropout=recipe.dropout,
        )  # fmt: skip
        self.data, self.recipe, self.device, self.on_curve = data, recipe, loaded.device, on_curve
        self.padding = loaded.tokenizer.pad_token_id or 0
        steps = recipe.steps or math.ceil(recipe.epochs * len(data.train) / recipe.batch)
        self.warmup = min(recipe.warmup, steps // 10)
        self.course = Course(
            steps, len(data.train), recipe.batch, recipe.batch // recipe.micro_batch, recipe.eval_every, seed
        )
        self.updates, self.best, self._predicted = updates(self.model), Best(), 0
        self._best_updates = {name: value.detach().clone() for name, value in self.updates.items()}
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            [{"params": list(self.updates.values()), "max_norm": 1.0}], recipe.learning_rate, weight_decay=0.0
        )

    def begin(self, step: int, rows: list[int]) -> None:
        """Count what this step predicts; before the first, measure the untrained model."""
        if step == 0:
            self._look(step)
        self.model.train()
        self._predicted = sum(_predicted(self.data.train[row]) for row in rows)

    def loss(self, rows: list[int]) -> tuple[Tensor, Sequence[Tensor]]:
        """Mean over the tokens that the whole step predicts, in so far as it is made of such parts."""
        logits, labels = self._answer([self.data.train[row] for row in rows])
        total = cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(),
            ignore_index=IGNORED, reduction="sum",
        )  # fmt: skip
        loss = total * (self.course.batch / len(rows) / max(self._predicted, 1))
        return loss, (loss,)

    def update(self, step: int) -> None:
        """One step downwards, at the rate of this step."""
        self.optimizer.param_groups[0]["lr"] = self._rate(step)
        self.optimizer.step()

    def _rate(self, step: int) -> float:
        """Linear up to the highest rate, then linear down to 0."""
        left = (self.course.steps - step) / (self.course.steps - self.warmup)
        return self.recipe.learning_rate * (step / self.warmup if step < self.warmup else left)

    def end(self, outcome: Outcome) -> None:
        """Draw the curves; measure from time to time."""
        step = outcome.step + 1
        if outcome.finite:
            self.on_curve("recover.loss", step, outcome.numbers[0])
        self.on_curve("recover.learning_rate", step, self._rate(outcome.step))
        if step == self.course.steps or step % self.recipe.eval_every == 0:
            self._look(step)

    def _look(self, step: int) -> None:
        """Measure what is kept apart and what is watched; the updates are remembered if none did better."""
        ppl = self.held_perplexity()
        self.on_curve("recover.held_ppl", step, ppl)
        for name, windows in self.watched.items():
            self.on_curve(f"recover.ppl.{name}", step, perplexity(self.model, windows).ppl)
        if step == 0 or ppl < self.best.ppl:
            self.best = Best(ppl, step, self.best.first if step else ppl)
            _copy(self.updates, self._best_updates)

    @torch.no_grad()
    def held_perplexity(self) -> float:
        """Perplexity on the sequences kept apart."""
        self.model.eval()
        total, size = 0.0, self.recipe.micro_batch
        for first in range(0, len(self.data.held), size):
            total += sum(window_losses(*self._answer(self.data.held[first : first + size])))
        return math.exp(min(total / sum(map(_predicted, self.data.held)), 700.0))

    def _answer(self, batch: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """Logits, (batch, longest, vocabulary), and labels, (batch, longest)."""
        tensors = {name: value.to(self.device) for name, value in collate(batch, self.padding).items()}
        labels = tensors.pop("labels")
        return self.model(**tensors, use_cache=False).logits, labels

    def tensors(self) -> dict[str, Tensor]:
        """The updates as they are, and as they were when they did best."""
        now = {f"updates/{name}": value for name, value in self.updates.items()}
        return now | {f"best/{name}": value for name, value in self._best_updates.items()}

    def facts(self) -> dict[str, Any]:
        """How the best updates did."""
        return {"best": asdict(self.best)}

    def restore(self, facts: Mapping[str, Any], step: int) -> None:
        """The rate of a step follows from its number."""
        self.best = Best(**facts["best"])

    def finish(self) -> Recovered:
        """Merge the best updates into the model."""
        _copy(self._best_updates, self.updates)
        merge(self.model)
        trained = sum(value.numel() for value in self.updates.values())
        best = self.best
        return Recovered(self.course.steps, best.step, best.first, best.ppl, trained, self.warmup)


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    for name, value in source.items():
        into[name].copy_(value)


def _predicted(example: Example) -> int:
    """How many tokens are predicted: the first never is."""
    return sum(label != IGNORED for label in example.labels[1:])
