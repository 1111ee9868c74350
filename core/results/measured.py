"""One model, measured: perplexity, answers and times, as a run keeps them while it goes on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.files import read_record, write_json
from core.results.perplexity import Perplexity

TIMINGS = ("latency_ms", "tokens_per_second", "memory_gib")


@dataclass(frozen=True)
class Measured:
    """One model, measured.

    Attributes:
        perplexity: of the first text; others: of the texts after it.
        samples: {"text", "tokens_per_second"} per prompt.
        efficiency: `TIMINGS` and their spreads, empty where not measured; `int8` holds
            the same of the model in 8 bits.
        int8: the perplexities of the model in 8 bits, empty where not measured.
    """

    perplexity: Perplexity
    samples: list[dict[str, Any]] = field(default_factory=list)
    efficiency: dict[str, Any] = field(default_factory=dict)
    others: tuple[Perplexity, ...] = ()
    int8: tuple[Perplexity, ...] = ()

    @property
    def ppl(self) -> float:
        """The value of the first text's perplexity."""
        return self.perplexity.ppl

    @property
    def perplexities(self) -> tuple[Perplexity, ...]:
        """The perplexity of every text, the first text first."""
        return (self.perplexity, *self.others)


def write_measured(path: Path, measured: Measured) -> None:
    """Raises StorageError."""
    write_json(path, asdict(measured))


def read_measured(path: Path) -> Measured:
    """Raises ArtifactError."""
    return read_record(path, Measured, "it is measured again")
