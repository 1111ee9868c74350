"""What a perplexity is made of, window by window, as `perplexity.json` holds it. Nothing here needs torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from core.errors import ArtifactError
from core.files import read_json, write_json

PERPLEXITY = "perplexity.json"


@dataclass(frozen=True)
class Perplexity:
    """How surprised a model is by a text.

    Attributes:
        ppl: exp(nll).
        nll: mean negative log-likelihood of a predicted token, in nats.
        tokens: tokens read; each window of them predicts all but its first.
        window: tokens a window.
        ids: a hash of all token ids; perplexities with the same one read the same windows.
        losses: mean negative log-likelihood of a predicted token in every window, in nats; empty if
            nobody kept them.
    """

    ppl: float
    nll: float
    tokens: int
    window: int
    ids: str = ""
    losses: tuple[float, ...] = ()

    @property
    def windows(self) -> int:
        """How many windows were read."""
        return self.tokens // self.window

    @property
    def stderr(self) -> float | None:
        """The standard error of `ppl`; None of fewer than two windows, or where it is past all numbers.

        Tokens of one window depend on each other, so windows are the sample, as clusters of equal size: the
        standard error of `nll` is s / sqrt(n), with s the standard deviation of the n windows' losses (n - 1
        in its denominator). By the delta method that of exp(nll) is exp(nll) times as large.
        """
        error = mean_error(self.losses)
        found = None if error is None else self.ppl * error
        return found if found is not None and math.isfinite(found) else None

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Perplexity:
        """Raises TypeError or KeyError on what is no record."""
        return cls(**{**raw, "losses": tuple(raw["losses"])})


def mean_error(values: Sequence[float]) -> float | None:
    """The standard error of a mean of independent values; None of fewer than two, or past all numbers."""
    count = len(values)
    if count < 2 or not all(map(math.isfinite, values)):
        return None
    mean = fmean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)


def read_perplexities(run_dir: Path) -> dict[str, Perplexity]:
    """`perplexity.json`: side -> perplexity; empty if there is none.

    Raises:
        ArtifactError: it is damaged.
    """
    path = run_dir / PERPLEXITY
    if not path.exists():
        return {}
    raw = read_json(path)
    try:
        return {side: Perplexity.from_json(one) for side, one in raw.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); measure again.") from error


def keep_perplexity(run_dir: Path, side: str, found: Perplexity) -> None:
    """Add one model's perplexity to `perplexity.json`; a damaged file is begun anew."""
    try:
        there = read_perplexities(run_dir)
    except ArtifactError:
        there = {}
    every = {**there, side: found}
    write_json(run_dir / PERPLEXITY, {name: asdict(one) for name, one in every.items()})
