"""The next-token loss that gradients are taken of: sample by sample, or over every token of a batch."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from core.errors import DataError
from core.models.tokens import special_positions


def sample_losses(model: PreTrainedModel, ids: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of every sample's next tokens that count, and how many those are, (batch,) each."""
    return _of_logits(model(input_ids=ids, use_cache=False).logits, ids, counted)


def _of_logits(logits: Tensor, ids: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """The same of what a model said, (batch, length, vocabulary)."""
    # The last position predicts nothing; leaving it out of the logits would copy them.
    targets = F.pad(ids.masked_fill(~counted, -100)[:, 1:], (0, 1), value=-100)  # (batch, length)
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    predicted = (targets != -100).sum(dim=1)
    return losses.view_as(targets).sum(dim=1) / predicted.clamp_min(1), predicted


def next_token_loss(model: PreTrainedModel, ids: Tensor, logits: Tensor | None = None) -> tuple[Tensor, int]:
    """Mean cross-entropy of every next token that is not a special token, and how many those are.

    Args:
        logits: what the model says of these ids, where it has been asked already.

    Raises:
        DataError: all of them are special.
    """
    if logits is None:
        logits = model(input_ids=ids, use_cache=False).logits
    losses, predicted = _of_logits(logits, ids, ~special_positions(model, ids))
    tokens = int(predicted.sum())
    if not tokens:
        raise DataError("The calibration text holds nothing but special tokens; give another text.")
    return (losses * predicted).sum() / tokens, tokens
