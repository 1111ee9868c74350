"""How a pruned model is trained back: LLM-Pruner's recipe, distillation, and recipes for two cores."""

from __future__ import annotations

import dataclasses
from typing import Any

from core.checked import checked
from core.option import option
from core.registry import unknown
from core.spec.checks import parse_share, require
from core.spec.texts import MIXED, TRAIN_ON

RECOVERIES = {
    "none": "Nothing is trained",
    "lora": "LoRA on the next token of a text",
    "distill": "The dense model teaches what it expects at every token",
}
#: Which matrices get LoRA: all those in the layers, or only those of one kind.
TARGETS = ("all", "attention", "query_value", "ffn")
#: Whether layers keep nothing of what is inside them for the way back, and compute it again.
CHECKPOINTING = ("auto", "on", "off")
#: What matrices are multiplied in while training, and what that says to people.
PRECISIONS = ("auto", "no", "bf16")
PRECISION_HELP = (
    "Of matrix products while training, bf16 or no lower one; auto: bf16 where the hardware multiplies it "
    "faster. What is trained, losses and norms stay in float32."
)
PROCESSES_HELP = "Devices that train together, each on its share of the batch."
#: Whether processes that train together hold a share each of the weights that are not trained.
SHARDING = ("auto", "on", "off")
SHARDING_HELP = (
    "Let each of several processes hold its share of the weights that are not trained (FSDP2), and gather a "
    "layer when it runs; auto: where a training does not fit otherwise."
)
#: Trains all numbers of the model, and no LoRA.
WEIGHTS = "weights"

#: Fields that say how a teacher is learned from.
OF_A_TEACHER = ("teacher", "temperature", "next_token", "layer_weight", "top_k", "logits")


@checked
class RecoverSpec:
    """Training after the cut. The defaults are LLM-Pruner's recipe (Appendix B of arXiv:2305.11627).

    `lora` trains low-rank updates of the matrices and merges them into the matrices at the end. The learning
    rate rises over `warmup` steps and then falls linearly to 0. `distill` does the same, or trains all
    weights, and learns from the dense model: its loss is the divergence from what that expects of every
    token, plus `next_token` times the loss of `lora`, plus `layer_weight` times how far the layers are apart.
    """

    method: str = option(
        "none",
        "How to train the pruned model.",
        title="Train what is left",
        choices=RECOVERIES,
        called="recover",
        flag="--recover",
    )
    data: str = option(
        MIXED,
        "What to train on: mixed (facts and speeches, half of each) or bundled (speeches), the calibration "
        "part, a named data set, a text, rows with instruction and output or with messages, or a hub data "
        "set; with commas the first that can be reached.",
        title="Text to train on",
        nonempty=True,
        called="recover data",
        wanted="mixed, bundled, a file, or a data set's name",
        examples=TRAIN_ON,
        flag="--recover-data",
        metavar="NAME_OR_FILE",
        place=True,
    )
    targets: str = option(
        "all",
        "Which matrices to train; weights: every number of the model, which distill can do.",
        choices=(*TARGETS, WEIGHTS),
    )
    rank: int = option(8, "Rank of each LoRA update.", ge=1)
    alpha: float = option(16.0, "LoRA updates are scaled by alpha over the rank.", gt=0)
    dropout: float = option(
        0.05,
        "Share of a LoRA update's inputs dropped, in [0, 1).",
        ge=0,
        lt=1,
        flag="--lora-dropout",
        parse=parse_share,
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
    patience: int = option(
        0,
        "Looks at the data kept apart without gain after which the training ends; 0 for all steps.",
        ge=0,
        unit="looks",
    )
    teacher: str = option(
        "",
        "Who teaches distill: the dense model, or another model with the same tokenizer.",
        default_text="the dense model",
        flag="--teacher",
        metavar="MODEL",
        place=True,
    )
    temperature: float = option(
        1.0, "Of the softmax whose divergence distill learns from.", ge=0.05, le=100.0, flag="--temperature"
    )
    next_token: float = option(
        0.0,
        "Weight of the loss of the next token beside the divergence, in distill.",
        ge=0.0,
        le=1e6,
        called="next-token-weight",
        flag="--next-token-weight",
    )
    layer_weight: float = option(
        0.0,
        "Weight of how far the layers' outputs are apart, as a share of their variance, in distill.",
        ge=0.0,
        le=1e6,
        flag="--layer-weight",
    )
    top_k: int = option(
        0,
        "Keep so many of the teacher's likeliest tokens at every position on disk before the cut, so that no "
        "second model is in memory while training; 0: the teacher stays in memory.",
        ge=0,
        le=4096,
        unit="tokens",
        flag="--teacher-top-k",
    )
    logits: str | None = option(
        None,
        "Folder for what is kept of the teacher, for other runs on the same text, too.",
        default_text="the run's own, removed in the end",
        called="teacher-logits",
        flag="--teacher-logits",
        metavar="FOLDER",
        place=True,
    )

    precision: str = option("auto", PRECISION_HELP, choices=PRECISIONS, flag="--precision")
    gradient_checkpointing: str = option(
        "auto",
        "Compute layers again on the way back, a third slower, and keep nothing of what is inside them; "
        "auto: where memory asks for it.",
        choices=CHECKPOINTING,
        flag="--gradient-checkpointing",
    )
    processes: int = option(1, PROCESSES_HELP, ge=1, le=64, unit="devices", flag="--processes")
    shard_weights: str = option("auto", SHARDING_HELP, choices=SHARDING, flag="--shard-weights")
    self_written: float = option(
        0.0,
        "Share of the sequences to train on that the dense model writes itself, 4,096 of them at most; what "
        "it writes is like nobody's text, so that less is learned of the hands that wrote the data.",
        ge=0.0,
        le=1.0,
        called="self-written",
        parse=parse_share,
        flag="--self-written",
    )
    control: bool = option(
        False,
        "Train the dense model, too, with LoRA on the next token of the same sequences, and measure it: what "
        "learning this text gives by itself. It takes as long as the training with lora.",
        title="The dense model trained on the same text, to compare with",
        flag="--control/--no-control",
    )

    def __post_init__(self) -> None:
        wanted = f"a divisor of batch, which is {self.batch}"
        require(self.batch % self.micro_batch == 0, "micro_batch", self.micro_batch, wanted)
        require(self.batch % self.processes == 0, "processes", self.processes, wanted)
        low_rank = self.targets != WEIGHTS or self.method != "lora"
        require(
            low_rank,
            "targets",
            self.targets,
            f"{', '.join(TARGETS)} with lora; distill trains {WEIGHTS}, too",
        )
        frozen = self.targets != WEIGHTS or self.shard_weights != "on"
        require(frozen, "shard_weights", "on", f"auto or off with targets {WEIGHTS}, which trains them all")
        kept = not (self.top_k and self.layer_weight)
        require(kept, "layer_weight", self.layer_weight, "0 with top_k, which keeps no layers")
        folder = self.logits is None or self.top_k > 0
        require(folder, "teacher-logits", self.logits, "left out, or given with --teacher-top-k, e.g. 64")

    @property
    def distils(self) -> bool:
        """Whether a teacher is learned from."""
        return self.method == "distill"

    @property
    def controls(self) -> bool:
        """Whether the dense model is trained beside the pruned one."""
        return self.control and self.method != "none"

    def of_control(self) -> RecoverSpec:
        """How the dense model is trained beside: with LoRA on the next token, at the same steps and rate."""
        targets = "all" if self.targets == WEIGHTS else self.targets
        return dataclasses.replace(
            self, method="lora", targets=targets, top_k=0, logits=None, patience=0, control=False
        )


#: What was measured of the demo model (docs/measured.md, With training).
_TAUGHT = RecoverSpec(
    "distill", targets=WEIGHTS, next_token=0.5, learning_rate=2e-4, warmup=10, steps=150, batch=4, length=128,
    eval_every=25, held=16,
)  # fmt: skip
#: `demo` fits the demo model into 20 minutes on two cores, as does `minutes` with the cut; `hour` is the same
#: four times as long. `paper` is what LLM-Pruner trains with on one GPU: Alpaca. Where the hub cannot be
#: reached it is the bundled text, and the run says so.
PRESETS = {
    "minutes": _TAUGHT,
    "hour": dataclasses.replace(_TAUGHT, steps=600, eval_every=50),
    "demo": RecoverSpec(
        "lora", learning_rate=1e-3, warmup=10, steps=150, batch=8, length=128, eval_every=25, held=32
    ),
    "paper": RecoverSpec("lora", "alpaca,bundled"),
}


def recipe_of(spec: RecoverSpec) -> str | None:
    """The preset that a training follows in all but its way and its data; None if it follows none."""
    said = _apart(spec)
    names = (name for name, each in PRESETS.items() if _apart(each) == said)
    return None if spec.method == "none" else next(names, None)


def _apart(spec: RecoverSpec) -> dict[str, Any]:
    """Its fields without way and data."""
    return {name: value for name, value in vars(spec).items() if name not in ("method", "data")}


def recover_preset(name: str) -> RecoverSpec:
    """A recipe by name. Raises UnknownNameError."""
    if name not in PRESETS:
        raise unknown("preset", name, list(PRESETS))
    return PRESETS[name]
