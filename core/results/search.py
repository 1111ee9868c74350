"""`search.json`: what each group costs at a few widths, and the plans that a search measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from core.files import read_record, write_json

SEARCH = "search.json"


@dataclass(frozen=True)
class GroupCurve:
    """A group's loss against the dense model, in nats per token, with so many of its units gone."""

    gone: tuple[int, ...]
    loss: tuple[float, ...]


@dataclass(frozen=True)
class SearchTrial:
    """A plan that was measured; `round` 0 are those of the curves alone, the front, and of other scopes."""

    round: int
    sparsity: float
    params: int
    ppl: float
    better: bool


@dataclass(frozen=True)
class Search:
    """`search.json`: rewritten after every plan that is measured.

    Attributes:
        criterion: what orders the units of a group; text: what was read; window: tokens in a window.
        tokens: per loss of a curve; ppl_tokens: per perplexity of a plan.
        biased: whether units that go leave their mean behind, as refits with biases do.
    """

    criterion: str
    text: str
    window: int
    tokens: int
    ppl_tokens: int
    biased: bool
    curves: dict[str, GroupCurve]
    trials: tuple[SearchTrial, ...]


def write_search(run_dir: Path, search: Search) -> None:
    """Write `search.json`. Raises StorageError."""
    write_json(run_dir / SEARCH, asdict(search))


def read_search(run_dir: Path) -> Search:
    """Read `search.json`. Raises ArtifactError."""
    return read_record(run_dir / SEARCH, Search, "run it again")
