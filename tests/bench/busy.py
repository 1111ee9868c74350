"""How much of the time a card computes, as its driver tells."""

from __future__ import annotations

import subprocess
from types import TracebackType

_ASK = (
    "nvidia-smi",
    "--query-gpu=utilization.gpu",
    "--format=csv,noheader,nounits",
    "-lms",
    "100",
    "-i",
    "0",
)


class Busy:
    """Samples card 0 for the length of a `with` block.

    Attributes:
        share: of the time at which a kernel was running, in [0, 1]: the mean of the samples, NaN without any.
    """

    share = float("nan")

    def __enter__(self) -> Busy:
        self._process = subprocess.Popen(_ASK, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        said = self._process.communicate()[0].splitlines()
        samples = [float(line) / 100 for line in said if line.strip().isdigit()]
        self.share = sum(samples) / len(samples) if samples else float("nan")
