"""A pass whose layers below one are taken from an earlier pass: what enters them does not change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from core.evaluate.perplexity import next_token_logits, window_losses
from core.graph.hooks import hooked, replaced


@dataclass(frozen=True)
class Pass:
    """One batch through a model.

    Attributes:
        ids: (batch, window).
        outputs: what each layer returned, in order.
        losses: summed negative log-likelihood of every window, in nats.
    """

    ids: Tensor
    outputs: list[Any]
    losses: list[float]


def whole_pass(model: Any, modules: list[nn.Module], ids: Tensor) -> Pass:
    """Run the whole model once and copy what leaves every layer."""
    outputs: list[Any] = []
    with hooked(m.register_forward_hook(lambda _m, _args, out: outputs.append(_copy(out))) for m in modules):
        logits = next_token_logits(model, ids)
    return Pass(ids, outputs, window_losses(logits, ids))


def _copy(out: Any) -> Any:
    """A layer's output with hidden states of its own, for the next layer may add to them in place."""
    return (out[0].clone(), *out[1:]) if isinstance(out, tuple) else out.clone()


def losses_from(model: Any, modules: list[nn.Module], layer: int, dense: Pass) -> list[float]:
    """Summed negative log-likelihood of every window when only this layer and those above are run."""
    return window_losses(logits_from(model, modules, layer, dense), dense.ids)


def logits_from(model: Any, modules: list[nn.Module], layer: int, earlier: Pass) -> Tensor:
    """Logits, (batch, window, vocabulary), when only this layer and those above are run."""
    skipped = [lambda *_, out=out, **__: _copy(out) for out in earlier.outputs[:layer]]
    with replaced(modules[:layer], skipped):
        return next_token_logits(model, earlier.ids)


def skipping_is_exact(model: Any, modules: list[nn.Module], dense: Pass) -> bool:
    """Whether the last layer alone gives the same loss; where layers share several streams it does not."""
    try:
        loss = sum(losses_from(model, modules, len(modules) - 1, dense))
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError):
        return False
    expected = sum(dense.losses)
    return abs(loss - expected) <= 1e-4 * max(1.0, abs(expected))
