"""`blocks.json`: what every whole block is worth, by what says which of them go."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from core.files import read_record, write_json

BLOCKS = "blocks.json"


@dataclass(frozen=True)
class BlockWorth:
    """`blocks.json`.

    Attributes:
        by: `block_influence`, `perplexity` or `summed`; criterion: whose scores were summed, else empty.
        text: what was read, empty where nothing was; tokens: how many of it.
        worth: block -> its influence, the perplexity without it, or the sum of its scores.
    """

    by: str
    criterion: str
    text: str
    tokens: int
    worth: dict[str, float]


def write_blocks(run_dir: Path, blocks: BlockWorth) -> None:
    """Write `blocks.json`. Raises StorageError."""
    write_json(run_dir / BLOCKS, asdict(blocks))


def read_blocks(run_dir: Path) -> BlockWorth:
    """Read `blocks.json`. Raises ArtifactError."""
    return read_record(run_dir / BLOCKS, BlockWorth, "run it again")
