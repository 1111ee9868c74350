"""Which model, and which text scores its units."""

from __future__ import annotations

from dataclasses import dataclass

from core.spec.checks import require as _require
from core.spec.checks import require_whole as _require_whole

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelSpec:
    """Which model, where, and in which precision.

    `source` is `demo`, a hub id, a folder, a `.gguf` file, or a run directory with a pruned model.
    """

    source: str = "demo"
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        _require(bool(self.source.strip()), "model", self.source, "a hub id, folder, .gguf file or 'demo'")
        _require(self.dtype in DTYPES, "dtype", self.dtype, f"one of {', '.join(DTYPES)}")


@dataclass(frozen=True)
class DataSpec:
    """Calibration text: `samples` windows of `length` tokens.

    `name` is `bundled`, a file, a hub data set, `self` (the model writes it) or `none`.
    """

    name: str = "bundled"
    samples: int = 16
    length: int = 128

    def __post_init__(self) -> None:
        _require_whole("samples", self.samples, 1)
        _require_whole("length", self.length, 8)
