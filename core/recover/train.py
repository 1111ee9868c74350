"""What a step of recovery is: a pruned model learns from data, or from a teacher, and the best of it stays.

Some sequences are kept apart and measured every few steps: the loss on them falls, then rises where the model
learns its data by heart, and what did best stays. Texts that nobody trains on are followed beside them
(LLM-Pruner, Figure 5 and Table 15), and choose nothing: a text that chose is no measure.
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
from core.graph.hooks import outputs_of
from core.graph.records import Graph
from core.models.load import Loaded
from core.recover.examples import IGNORED, Example, TrainingData, collate
from core.recover.logits import counted
from core.recover.loop import Course, Outcome
from core.recover.lora import updates
from core.recover.losses import relative_layer_loss
from core.recover.recompute import recomputing
from core.recover.shards import Frozen
from core.recover.teacher import Teacher
from core.recover.weights import trainable
from core.spec.recover import RecoverSpec

#: Told (name of a curve, step, value).
Curve = Callable[[str, int, float], None]


@dataclass(frozen=True)
class Best:
    """How the best updates did on the sequences kept apart.

    Attributes:
        ppl, kl: perplexity, and divergence from the teacher where there is one; first, first_kl: before
            training. step: after which step that was, 0 the untrained model.
        loss: what is learned from, without layers: the lowest is the best.
    """

    ppl: float = math.inf
    step: int = 0
    first: float = math.inf
    kl: float | None = None
    first_kl: float | None = None
    loss: float = math.inf


@dataclass(frozen=True)
class Recovered:
    """How training went.

    Attributes:
        steps: optimizer steps asked for; best_step: the one whose updates were merged, 0 = none helped.
        held_ppl_before, held_ppl_after: perplexity on the sequences kept apart, untrained and merged.
        trained: numbers that were trained; warmup: steps of warm-up, shortened to a tenth of a short run.
        held_kl_before, held_kl_after: the divergence from the teacher there, in nats; None without one.
        ended: the step after which nothing more was gained, as far as `patience` goes; None for all steps.
    """

    steps: int
    best_step: int
    held_ppl_before: float
    held_ppl_after: float
    trained: int
    warmup: int
    held_kl_before: float | None = None
    held_kl_after: float | None = None
    ended: int | None = None


class Recovery:
    """A pruned model under training; see `core.recover.loop.Training`.

    Args:
        loaded: the model, which is trained in place and of no use before `finish`.
        graph: of the dense model; names of modules do not change by pruning.
        watched: texts to follow: name -> windows, (windows, window).
        teacher: who is learned from; None for the next token of the data alone.
        leads: whether this process measures, and so knows which updates did best.

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
        teacher: Teacher | None = None,
        leads: bool = True,
    ) -> None:
        self.watched, self.teacher, self._leads = watched or {}, teacher, leads
        torch.manual_seed(seed)
        self._trainable = trainable(loaded.model, graph, recipe)
        self.model = self._trainable.model
        self.data, self.recipe, self.device, self.on_curve = data, recipe, loaded.device, on_curve
        layers = [loaded.model.get_submodule(name) for name in graph.layer_modules]
        self._layers = layers if teacher and recipe.layer_weight else []
        self._every_layer = layers
        self._forgetful = layers if recipe.gradient_checkpointing == "on" else []
        self.padding = loaded.tokenizer.pad_token_id or 0
        steps = steps_of(recipe, len(data.train))
        self.warmup = min(recipe.warmup, steps // 10)
        self.course = Course(
            steps, len(data.train), recipe.batch, recipe.micro_batch, recipe.eval_every, seed
        )
        self.updates, self.best, self._predicted, self._looked = updates(self.model), Best(), 0, 0
        self._best_updates = {name: value.detach().clone() for name, value in self.updates.items()}
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            [{"params": list(self.updates.values()), "max_norm": 1.0}], recipe.learning_rate, weight_decay=0.0
        )

    def frozen(self) -> list[Frozen]:
        """The models that are called, of which nothing but the updates is trained."""
        ours = Frozen(self.model, self._every_layer, self.updates.values())
        return [ours, *(self.teacher.frozen() if self.teacher else ())]

    @property
    def over(self) -> bool:
        """Whether nothing was gained for as long as `patience` goes."""
        patience = self.recipe.patience * self.recipe.eval_every
        return bool(patience) and self._looked - self.best.step >= patience

    def begin(self, step: int, rows: list[int]) -> None:
        """Count what this step predicts; before the first, measure the untrained model."""
        if step == 0 and self._leads:
            self._look(step)
        self.model.train()
        self._predicted = sum(_predicted(self.data.train[row]) for row in rows)

    def loss(self, rows: list[int]) -> tuple[Tensor, Sequence[Tensor]]:
        """Mean over the tokens that the whole step predicts, in so far as it is made of such parts.

        What is measured: the loss of the next token, or of a teacher's lesson all of it, the divergence, the
        loss of the next token and that of the layers, the last two 0 where they have no weight.
        """
        batch, recipe = [self.data.train[row] for row in rows], self.recipe
        inputs, labels = self._inputs(batch)
        share = self.course.batch / len(rows) / max(self._predicted, 1)
        lesson = self.teacher.teach(batch, inputs) if self.teacher else None
        with outputs_of(self._layers) as outputs, recomputing(self._forgetful):
            logits = self.model(**inputs, use_cache=False).logits
        nothing = logits.new_zeros((), dtype=torch.float32)
        if lesson is None:
            loss = _next_token(logits, labels) * share
            return loss, (loss,)
        where = counted(labels)
        apart = lesson.divergence(logits, where) * (where.sum() * share)
        learned = _next_token(logits, labels) * share if recipe.next_token else nothing
        layers = relative_layer_loss(outputs, lesson.layers) if self._layers else nothing
        loss = apart + recipe.next_token * learned + recipe.layer_weight * layers
        return loss, (loss, apart, learned, layers)

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
        step, recipe = outcome.step + 1, self.recipe
        if outcome.finite:
            several = recipe.next_token + recipe.layer_weight  # otherwise the divergence is all of the loss
            weights = (1.0, several, recipe.next_token, recipe.layer_weight)
            for name, value, weight in zip(_CURVES, outcome.numbers, weights, strict=False):
                if weight:
                    self.on_curve(name, step, value)
        self.on_curve("recover.learning_rate", step, self._rate(outcome.step))
        if self._leads and (step == self.course.steps or step % recipe.eval_every == 0):
            self._look(step)

    def _look(self, step: int) -> None:
        """Measure what is kept apart and what is watched; the updates are remembered if none did better."""
        nll, kl = self.held_losses()
        ppl, self._looked = math.exp(min(nll, 700.0)), step
        loss = nll if kl is None else kl + self.recipe.next_token * nll
        self.on_curve("recover.held_ppl", step, ppl)
        if kl is not None:
            self.on_curve("recover.held_kl", step, kl)
        for name, windows in self.watched.items():
            self.on_curve(f"recover.ppl.{name}", step, perplexity(self.model, windows).ppl)
        if step == 0 or loss < self.best.loss:
            first, first_kl = (self.best.first, self.best.first_kl) if step else (ppl, kl)
            self.best = Best(ppl, step, first, kl, first_kl, loss)
            _copy(self.updates, self._best_updates)

    @torch.no_grad()
    def held_losses(self) -> tuple[float, float | None]:
        """On the sequences kept apart: the mean loss of a token, and how far a teacher is away, if any."""
        self.model.eval()
        total, apart, size = 0.0, 0.0, self.recipe.micro_batch
        for first in range(0, len(self.data.held), size):
            batch = self.data.held[first : first + size]
            inputs, labels = self._inputs(batch)
            logits = self.model(**inputs, use_cache=False).logits
            total += sum(window_losses(logits, labels))
            if self.teacher:
                where = counted(labels)
                lesson = self.teacher.teach(batch, inputs)
                apart += float(lesson.divergence(logits, where)) * float(where.sum())
        count = sum(map(_predicted, self.data.held))
        return total / count, apart / count if self.teacher else None

    def _inputs(self, batch: Sequence[Example]) -> tuple[dict[str, Tensor], Tensor]:
        """What the model reads, by name, and labels; each (batch, longest)."""
        tensors = {name: value.to(self.device) for name, value in collate(batch, self.padding).items()}
        return tensors, tensors.pop("labels")

    def tensors(self) -> dict[str, Tensor]:
        """The updates as they are, and as they were when they did best."""
        now = {f"updates/{name}": value for name, value in self.updates.items()}
        return now | {f"best/{name}": value for name, value in self._best_updates.items()}

    def facts(self) -> dict[str, Any]:
        """How the best updates did, and when it was last looked."""
        return {"best": asdict(self.best), "looked": self._looked}

    def restore(self, facts: Mapping[str, Any], step: int) -> None:
        """The rate of a step follows from its number."""
        self.best, self._looked = Best(**facts["best"]), facts["looked"]

    def finish(self) -> Recovered:
        """Leave the best updates in the model."""
        _copy(self._best_updates, self.updates)
        trained = sum(value.numel() for value in self.updates.values())
        self._trainable.finish()
        best, steps = self.best, self.course.steps
        return Recovered(
            steps, best.step, best.first, best.ppl, trained, self.warmup, best.first_kl, best.kl,
            self._looked if self.over and self._looked < steps else None,
        )  # fmt: skip


#: What the numbers of a step are called.
_CURVES = ("recover.loss", "recover.kl", "recover.next_token_loss", "recover.layer_loss")


def steps_of(recipe: RecoverSpec, count: int) -> int:
    """The optimizer steps of a training on so many sequences."""
    return recipe.steps or math.ceil(recipe.epochs * count / recipe.batch)


def _next_token(logits: Tensor, labels: Tensor) -> Tensor:
    """The summed loss of every token that is predicted."""
    return cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(),
        ignore_index=IGNORED, reduction="sum",
    )  # fmt: skip


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    for name, value in source.items():
        into[name].copy_(value)


def _predicted(example: Example) -> int:
    """How many tokens are predicted: the first never is."""
    return sum(label != IGNORED for label in example.labels[1:])
