"""How a pruned model is trained back: LLM-Pruner's recipe, and one for two cores."""

from __future__ import annotations

from core.checked import checked
from core.option import option
from core.registry import unknown
from core.spec.checks import require
from core.spec.texts import TRAIN_ON

RECOVERIES = ("none", "lora")
#: Which matrices are trained: all those in the layers, or only those of one kind.
TARGETS = ("all", "attention", "query_value", "ffn")


@checked
class RecoverSpec:
    """Training after the cut. The defaults are LLM-Pruner's recipe (Appendix B of arXiv:2305.11627).

    `lora` trains low-rank updates of the matrices and merges them into the matrices at the end. The learning
    rate rises over `warmup` steps and then falls linearly to 0.
    """

    method: str = option(
        "none", "How to train the pruned model.", choices=RECOVERIES, called="recover", flag="--recover"
    )
    data: str = option(
        "bundled",
        "What to train on: bundled (the calibration part), a named data set, a text, rows with instruction "
        "and output or with messages, or a hub data set; with commas the first that can be reached.",
        nonempty=True,
        called="recover data",
        wanted="bundled, a file, or a data set's name",
        examples=TRAIN_ON,
        flag="--recover-data",
        metavar="NAME_OR_FILE",
    )
    targets: str = option("all", "Which matrices to train.", choices=TARGETS)
    rank: int = option(8, "Rank of each LoRA update.", ge=1)
    alpha: float = option(16.0, "LoRA updates are scaled by alpha over the rank.", gt=0)
    dropout: float = option(
        0.05, "Share of a LoRA update's inputs dropped, in [0, 1).", ge=0, lt=1, flag="--lora-dropout"
    )
    learning_rate: float = option(1e-4, "Highest learning rate.", gt=0)
    warmup: int = option(
        100, "Steps until the highest learning rate is reached, a tenth of all at most.", ge=0, unit="steps"
    )
    epochs: int = option(2, "Passes over the training data.", ge=1, unit="passes")
    steps: int | None = option(
        None,
        "Optimizer steps of the training, instead of epochs.",
        default_text="whole epochs",
        ge=1,
        unit="steps",
    )
    batch: int = option(64, "Sequences per step.", ge=1, unit="sequences")
    micro_batch: int = option(4, "Sequences in memory at once, a divisor of --batch.", ge=1, unit="sequences")
    length: int = option(
        256,
        "Tokens per sequence, at most.",
        ge=8,
        called="recover length",
        unit="tokens",
        flag="--recover-length",
    )
    eval_every: int = option(100, "Steps between two looks at the data kept apart.", ge=1, unit="steps")
    held: int = option(64, "Sequences kept apart, a tenth of all at most.", ge=1, unit="sequences")

    def __post_init__(self) -> None:
        wanted = f"a divisor of batch, which is {self.batch}"
        require(self.batch % self.micro_batch == 0, "micro_batch", self.micro_batch, wanted)


#: `demo` fits the demo model into 20 minutes on two cores; `paper` is what LLM-Pruner trains with on one GPU:
#: Alpaca. Where the hub cannot be reached it is the bundled text, and the run says so.
PRESETS = {
    "demo": RecoverSpec(
        "lora", learning_rate=1e-3, warmup=10, steps=150, batch=8, length=128, eval_every=25, held=32
    ),
    "paper": RecoverSpec("lora", "alpaca,bundled"),
}


def recover_preset(name: str) -> RecoverSpec:
    """A recipe by name. Raises UnknownNameError."""
    if name not in PRESETS:
        raise unknown("preset", name, list(PRESETS))
    return PRESETS[name]
