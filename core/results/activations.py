"""`activations.json`: how large the features are that a model's matrices read, layer by layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from core.files import read_record, write_json

ACTIVATIONS = "activations.json"
Place = Literal["attention", "attention_out", "ffn", "ffn_out"]
#: What is read in a layer -> in words: the inputs of level 1 and of level 2 of its two depth-2 modules.
PLACES: dict[Place, str] = {
    "attention": "what attention reads",
    "attention_out": "what its output projection reads",
    "ffn": "what the feed-forward reads",
    "ffn_out": "what its down projection reads",
}


@dataclass(frozen=True)
class Activation:
    """The features at one place, over all tokens and channels.

    Attributes:
        mean: of their absolute values; rms: their root mean square; largest: the largest absolute value.
    """

    layer: int
    place: Place
    mean: float
    rms: float
    largest: float


@dataclass(frozen=True)
class Activations:
    """`activations.json`. Source: greedy output approximation, arXiv:2407.19126, Figure 5.

    Attributes:
        points: in the order of layers and of `PLACES`; places that cannot be watched are missing.
        tokens: positions that count; text: where they are from.
    """

    points: tuple[Activation, ...]
    tokens: int
    text: str


def write_activations(run_dir: Path, activations: Activations) -> None:
    """Write `activations.json`. Raises StorageError."""
    write_json(run_dir / ACTIVATIONS, asdict(activations))


def read_activations(run_dir: Path) -> Activations:
    """Read `activations.json`. Raises ArtifactError."""
    return read_record(run_dir / ACTIVATIONS, Activations, "score the model's units again")
