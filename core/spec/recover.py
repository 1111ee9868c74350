"""How a pruned model is trained back: LLM-Pruner's recipe, and one for two cores. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from core.registry import unknown
from core.spec.checks import require, require_positive, require_share, require_whole

RECOVERIES = ("none", "lora")
#: Which matrices are trained: all those in the layers, or only those of one kind.
TARGETS = ("all", "attention", "ffn")


@dataclass(frozen=True)
class RecoverSpec:
    """Training after the cut. The defaults are LLM-Pruner's recipe (Appendix B of arXiv:2305.11627).

    Attributes:
        method: `none`, or `lora`: low-rank updates of the matrices, merged into them at the end.
        data: `bundled` (the calibration part), a file (text, or rows with instruction and output), or a
            data set on the hub.
        targets: which matrices: `all` in the layers, `attention` or `ffn`.
        rank, alpha: of an update, which is scaled by alpha / rank; dropout: share of its inputs dropped.
        learning_rate: the highest; reached after `warmup` steps, then falling linearly to 0.
        epochs: passes over the data; steps: optimizer steps instead, None for whole epochs.
        batch: sequences per step; micro_batch: of them, so many in memory at once.
        length: tokens per sequence, at most.
        eval_every: steps between two measurements on the `held` sequences that are kept apart.
    """

    method: str = "none"
    data: str = "bundled"
    targets: str = "all"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05
    learning_rate: float = 1e-4
    warmup: int = 100
    epochs: int = 2
    steps: int | None = None
    batch: int = 64
    micro_batch: int = 4
    length: int = 256
    eval_every: int = 100
    held: int = 64

    def __post_init__(self) -> None:
        require(self.method in RECOVERIES, "recover", self.method, f"one of {', '.join(RECOVERIES)}")
        require(bool(self.data.strip()), "recover data", self.data, "bundled, a file, or a data set's name")
        require(self.targets in TARGETS, "targets", self.targets, f"one of {', '.join(TARGETS)}")
        for name in ("rank", "epochs", "batch", "micro_batch", "eval_every", "held"):
            require_whole(name, getattr(self, name), 1)
        require_whole("warmup", self.warmup, 0)
        require_whole("recover length", self.length, 8)
        if self.steps is not None:
            require_whole("steps", self.steps, 1)
        require_positive("alpha", self.alpha)
        require_positive("learning_rate", self.learning_rate)
        require_share("dropout", self.dropout)
        wanted = f"a divisor of batch, which is {self.batch}"
        require(self.batch % self.micro_batch == 0, "micro_batch", self.micro_batch, wanted)


#: `demo` fits the demo model into 20 minutes on two cores; `paper` is what LLM-Pruner trains with on one GPU.
PRESETS = {
    "demo": RecoverSpec(
        "lora", learning_rate=1e-3, warmup=10, steps=150, batch=8, length=128, eval_every=25, held=32
    ),
    "paper": RecoverSpec("lora"),
}


def recover_preset(name: str) -> RecoverSpec:
    """A recipe by name. Raises UnknownNameError."""
    if name not in PRESETS:
        raise unknown("preset", name, list(PRESETS))
    return PRESETS[name]
