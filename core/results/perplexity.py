"""Perplexities and the windows behind them, as in `perplexity.json`: of every model one per text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

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
        protocol: how the text was cut, a name of `core.spec.evaluate.PROTOCOLS`; text, sha256: its name and
            hash, empty in older files.
        kl: mean divergence KL(dense || this) of the next token, in nats, at positions spread over the
            windows; None of the dense model, and where that was not at hand. kls: the same in every window.
    """

    ppl: float
    nll: float
    tokens: int
    window: PositiveInt
    ids: str = ""
    losses: tuple[float, ...] = ()
    protocol: str = WORKBENCH
    text: str = ""
    sha256: str = ""
    kl: float | None = None
    kls: tuple[float, ...] = ()

    @property
    def kl_stderr(self) -> float | None:
        """The standard error of `kl`, windows being the sample; None for fewer than two."""
        return mean_error(self.kls)

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


def by_text(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What `metrics.json` says of every text: a row each, the first text first, under the same names.

    A row has what its numbers depend on, too: `calibration_text`, `seed`, and of the text its name, hash,
    protocol, window and tokens. Older runs measured one text.
    """
    if "perplexities" in metrics:
        return list(metrics["perplexities"])
    of_one = {name: value for name, value in metrics.items() if name.startswith("ppl")}
    return [{**of_one, "calibration_text": metrics.get("calibration_text")}] if of_one else []


def on_text(measured: Sequence[Perplexity], number: int, sha256: str | None) -> Perplexity | None:
    """A model's perplexity on a text: the first one is the first, others are found by their text's hash."""
    if number == 0:
        return measured[0] if measured else None
    return next((other for other in measured[1:] if other.sha256 == sha256), None)


def mean_error(values: Sequence[float]) -> float | None:
    """The standard error of a mean of independent values; None for fewer than two, or where one overflows."""
    count = len(values)
    if count < 2 or not all(map(math.isfinite, values)):
        return None
    mean = fmean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)


def read_perplexities(run_dir: Path) -> dict[str, tuple[Perplexity, ...]]:
    """`perplexity.json`: side -> a perplexity per text, in the order asked for; empty without a file.

    Raises:
        ArtifactError: the file is damaged.
    """
    path = run_dir / PERPLEXITY
    if not path.exists():
        return {}
    # Older files have the perplexity of one text in the place of a list.
    sides = read_record(path, dict[str, Perplexity | tuple[Perplexity, ...]], "measure again")
    return {side: (each,) if isinstance(each, Perplexity) else each for side, each in sides.items()}


def keep_perplexities(run_dir: Path, side: str, measured: Sequence[Perplexity]) -> None:
    """Add one model's perplexities to `perplexity.json`; a damaged file is replaced."""
    perplexities = {side: tuple(measured)}
    with suppress(ArtifactError):
        perplexities = read_perplexities(run_dir) | perplexities
    write_json(run_dir / PERPLEXITY, {name: list(map(asdict, each)) for name, each in perplexities.items()})
