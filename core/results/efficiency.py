"""What a model costs at run time, round by round, as in `efficiency.json`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat

from core.errors import ArtifactError
from core.files import read_record, write_json

EFFICIENCY = "efficiency.json"
#: A time in `metrics.json` -> the name of its spread there.
SPREADS = {"latency_ms": "latency_spread_ms", "tokens_per_second": "tokens_per_second_spread"}


@dataclass(frozen=True)
class Timed:
    """One action, timed over several rounds.

    Attributes:
        median_ms: the median of the rounds; spread_ms: slowest minus fastest; repeats: how many rounds.
        rounds_ms: the time of every round, in order; empty in older files.
    """

    median_ms: float
    spread_ms: float
    repeats: int
    rounds_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class Timing:
    """Reading and writing of `batch` prompts side by side, with a cache; medians over the repeats.

    Attributes:
        prefill_ms: reading the prompts, up to the logits of the first new token; spreads: slowest minus
            fastest; rounds: every repeat, in order, empty in older files.
        decode_ms: writing one more token of each.
        prefill_tokens_per_second, decode_tokens_per_second: the same as rates, over the whole batch.
    """

    batch: int
    prompt_tokens: int
    new_tokens: int
    repeats: int
    prefill_ms: float
    prefill_spread_ms: float
    prefill_tokens_per_second: float
    decode_ms: PositiveFloat
    decode_spread_ms: float
    decode_tokens_per_second: float
    prefill_rounds_ms: tuple[float, ...] = ()
    decode_rounds_ms: tuple[float, ...] = ()

    @property
    def prefill(self) -> Timed:
        """The times of reading the prompts."""
        return Timed(self.prefill_ms, self.prefill_spread_ms, self.repeats, self.prefill_rounds_ms)

    @property
    def decode(self) -> Timed:
        """The times of writing one more token of each."""
        return Timed(self.decode_ms, self.decode_spread_ms, self.repeats, self.decode_rounds_ms)


@dataclass(frozen=True)
class Efficiency:
    """One model's cost.

    Attributes:
        latency_ms, tokens_per_second: of the first batch size: reading its prompts, and writing.
        weights_gib: parameters and buffers.
        memory_gib: weights, and on CUDA the most that a round took on top of them; elsewhere the
            weights alone, since the system does not tell. Bytes are counted, so there is no spread.
        kv_bytes_per_token: key-value cache of one token of one sequence, as it was allocated; None where the
            model's cache does not show its tensors. A plan counts the same at `core.plan.records.KV_BITS`.
        timings: one per batch size, in order.
        kv_bits: bits per number of that cache; None in files written before it was recorded.
    """

    params: int
    latency_ms: float
    tokens_per_second: float
    weights_gib: float
    memory_gib: float
    kv_bytes_per_token: int | None
    timings: Annotated[tuple[Timing, ...], Field(min_length=1)]
    kv_bits: int | None = None

    @property
    def latency_spread_ms(self) -> float:
        """Slowest minus fastest reading of the prompts behind `latency_ms`."""
        return self.timings[0].prefill_spread_ms

    @property
    def tokens_per_second_spread(self) -> float:
        """The same share of the speed as the spread of a token's time is of that time."""
        first = self.timings[0]
        return self.tokens_per_second * first.decode_spread_ms / first.decode_ms

    def timed(self, name: str) -> Timed:
        """The times behind one of `SPREADS`."""
        first = self.timings[0]
        return first.prefill if name == "latency_ms" else first.decode

    def error(self, name: str) -> float:
        """What stands after ± beside one of `SPREADS`: half of slowest minus fastest, in its unit."""
        return float(getattr(self, SPREADS[name])) / 2


def read_efficiency(run_dir: Path) -> dict[str, Efficiency]:
    """`efficiency.json`: side -> what it costs; empty without one. Raises ArtifactError if damaged."""
    path = run_dir / EFFICIENCY
    return read_record(path, dict[str, Efficiency], "measure again") if path.exists() else {}


def keep_efficiency(run_dir: Path, measured: dict[str, Efficiency]) -> None:
    """Add what models cost to `efficiency.json`; a damaged file is replaced."""
    with suppress(ArtifactError):
        measured = read_efficiency(run_dir) | measured
    write_json(run_dir / EFFICIENCY, {side: asdict(record) for side, record in measured.items()})
