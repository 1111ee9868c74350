"""Perplexities and the windows behind them, as in `perplexity.json`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from pydantic import PositiveInt

from core.errors import ArtifactError
from core.files import read_record, write_json
from core.spec.evaluate import WORKBENCH

PERPLEXITY = "perplexity.json"
#: What every perplexity of a run was measured on, as `metrics.json` names it.
PPL_ON = ("ppl_text", "ppl_protocol", "ppl_window", "ppl_tokens")


@dataclass(frozen=True)
class Perplexity:
    """How surprised a model is by a text.

    Attributes:
        ppl: exp(nll).
        nll: mean negative log-likelihood of a predicted token, in nats.
        tokens: tokens read; each window of them predicts all but its first.
        window: tokens per window.
        ids: a hash of all token ids; perplexities with equal hashes read the same windows.
        losses: mean negative log-likelihood of a predicted token in every window, in nats; empty in
            older files.
        protocol: how the text was cut, a name of `core.spec.evaluate.PROTOCOLS`; text: its name, empty in
            older files.
    """

    ppl: float
    nll: float
    tokens: int
    window: PositiveInt
    ids: str = ""
    losses: tuple[float, ...] = ()
    protocol: str = WORKBENCH
    text: str = ""

    @property
    def windows(self) -> int:
        """How many windows were read."""
        return self.tokens // self.window

    @property
    def scored(self) -> int:
        """How many tokens were predicted: all but the first of every window."""
        return self.tokens - self.windows

    @property
    def stderr(self) -> float | None:
        """The standard error of `ppl`; None for fewer than two windows, or where it overflows.

        Tokens of one window depend on each other, so windows are the sample, as clusters of equal size: the
        standard error of `nll` is s / sqrt(n), with s the standard deviation of the n windows' losses (n - 1
        in its denominator). By the delta method that of exp(nll) is exp(nll) times as large.
        """
        error = mean_error(self.losses)
        stderr = None if error is None else self.ppl * error
        return stderr if stderr is not None and math.isfinite(stderr) else None


def mean_error(values: Sequence[float]) -> float | None:
    """The standard error of a mean of independent values; None for fewer than two, or where one overflows."""
    count = len(values)
    if count < 2 or not all(map(math.isfinite, values)):
        return None
    mean = fmean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)


def read_perplexities(run_dir: Path) -> dict[str, Perplexity]:
    """`perplexity.json`: side -> perplexity; empty without one. Raises ArtifactError if damaged."""
    path = run_dir / PERPLEXITY
    return read_record(path, dict[str, Perplexity], "measure again") if path.exists() else {}


def keep_perplexity(run_dir: Path, side: str, measured: Perplexity) -> None:
    """Add one model's perplexity to `perplexity.json`; a damaged file is replaced."""
    perplexities = {side: measured}
    with suppress(ArtifactError):
        perplexities = read_perplexities(run_dir) | perplexities
    write_json(run_dir / PERPLEXITY, {name: asdict(record) for name, record in perplexities.items()})
