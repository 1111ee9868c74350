"""`sensitivity.json`: what pruning one layer costs in perplexity."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, PositiveInt

from core.files import read_record, write_json
from core.spec.evaluate import WORKBENCH
from core.spec.past import FORMAT, today

SENSITIVITY = "sensitivity.json"


def _checked(point: dict[str, Any]) -> dict[str, Any]:
    whole = ["layer", *(["unit"] if point.get("kind") == "head" else [])]
    numbers = ("ratio", "ppl", "ppl_stderr", "change_stderr", "target")
    wrong = [key for key in whole if type(point.get(key)) is not int]
    wrong += [key for key in ("kind",) if not isinstance(point.get(key), str)]
    wrong += [key for key in ("ratio", "ppl") if key not in point]
    wrong += [key for key in numbers if not isinstance(point.get(key), (int, float, type(None)))]
    if wrong:
        raise ValueError(f"{wrong[0]} of a point is missing or of the wrong type")
    return point


@dataclass(frozen=True)
class Sensitivity:
    """`sensitivity.json`: perplexity when only one layer's units of one kind are pruned.

    `points` are {"layer", "kind", "ratio", "ppl"}; `window`, `tokens` and `protocol` say how it was
    measured.
    `ppl_stderr` of a point and `baseline_stderr` are standard errors of perplexities, `change_stderr` of the
    change from the baseline in nats, taken window by window; older scans have none.
    `format` says in which words the criterion is told, see `core.spec.past`; release 0.1 does not say it.
    """

    baseline_ppl: float
    text: str
    window: PositiveInt
    tokens: int
    criterion: str
    points: list[Annotated[dict[str, Any], AfterValidator(_checked)]]
    seconds: float = 0.0
    baseline_stderr: float | None = None
    protocol: str = WORKBENCH
    format: int = field(default=1, compare=False)

    @property
    def windows(self) -> int:
        """How many windows every perplexity was measured on."""
        return self.tokens // self.window


def write_sensitivity(run_dir: Path, sensitivity: Sensitivity) -> None:
    """Write `sensitivity.json`. Raises StorageError."""
    write_json(run_dir / SENSITIVITY, asdict(replace(sensitivity, format=FORMAT)))


def read_sensitivity(run_dir: Path) -> Sensitivity:
    """Read `sensitivity.json`, in today's words. Raises ArtifactError."""
    scan = read_record(run_dir / SENSITIVITY, Sensitivity)
    criterion = today("explore.sensitivity_criterion", scan.criterion, scan.format)
    return replace(scan, criterion=criterion, format=FORMAT)
