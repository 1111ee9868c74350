"""What NutePrune can be told, with meaning, unit and default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.checked import checked
from core.errors import SpecError
from core.option import option, options_of
from core.spec.nuteprune_presets import PRESETS
from core.spec.prune import PruneSpec
from core.spec.recover import (
    CHECKPOINTING,
    PRECISION_HELP,
    PRECISIONS,
    PROCESSES_HELP,
    SHARDING,
    SHARDING_HELP,
    TARGETS,
)

#: Half of log alpha's range, and the fastest a mask may go however short a run is.
_HALF_RANGE, _FASTEST = 4.605, 1.0
#: Kinds of which no matrix has LoRA, by what has it.
_WITHOUT_LORA = {
    "attention": ("ffn_channel",),
    "query_value": ("ffn_channel",),
    "ffn": ("query_head", "kv_group"),
}


@checked
class Settings:
    """The options of one run."""

    steps: int = option(150, "optimizer steps in all", ge=1, le=10**7)
    batch: int = option(4, "windows per step", ge=1, le=4096)
    accumulate: int = option(1, "parts a batch is split into, to fit into memory", ge=1, le=4096)
    gradient_checkpointing: str = option(
        "auto",
        "compute layers again on the way back and keep nothing inside them; auto: where memory asks for it",
        choices=CHECKPOINTING,
    )
    processes: int = option(1, PROCESSES_HELP, ge=1, le=64)
    shard_weights: str = option("auto", SHARDING_HELP, choices=SHARDING)
    warmup: float = option(0.4, "share of the steps in which the target rises to its full height", ge=0, le=1)
    settle: float = option(
        0.4, "share of the steps at the end in which the plan is fixed; 0 as in the paper", ge=0, le=1
    )
    rule: str = option(
        "learned",
        "what decides: learned masks, or the scores of a baseline: MaP, MvP, or LoRA's gradients (LoRAPrune)",
        choices=("learned", "magnitude", "movement", "lora_gradient"),
    )
    distillation: str = option(
        "progressive",
        "who teaches: many snapshots, the dense model (same weights), nobody, or a second model in memory",
        choices=("progressive", "dense", "none", "second_model"),
    )
    stage_1: bool = option(
        True, "progressive before the target is reached; otherwise the dense model teaches"
    )
    stage_2: bool = option(True, "progressive after the target is reached; otherwise the dense model teaches")
    gap: float = option(0.1, "sparsity g between teacher and student in stage 1", ge=0, le=1)
    interval: float = option(0.01, "sparsity i between two snapshots", ge=1e-4, le=1.0)
    last: float = option(0.5, "share of stage 2 that the dense model teaches at the end", ge=0, le=1)
    temperature: float = option(2 / 3, "of the softmax whose divergence is learned from", ge=0.05, le=100.0)
    next_token: float = option(
        0.0, "weight of the loss of the next token beside the divergence; ours", ge=0.0, le=1e6
    )
    layer_weight: float = option(0.0, "alpha_1: weight of the layer loss; 0 saves its memory", ge=0.0, le=1e6)
    layer_loss: str = option(
        "paper",
        "how far layers are apart: by Eq. 6; relative, ours: as a share of its variance",
        choices=("paper", "relative"),
    )
    sparsity_weight: float = option(1.0, "alpha_2: weight of the Lagrangian", ge=0.0, le=1e6)
    mask_rate: float = option(
        0.1,
        "learning rate of the masks, log alpha a step; in short runs what makes 4.6 until the plan is fixed",
        ge=1e-6,
        le=10.0,
    )
    lambda_rate: float = option(
        200.0, "rise of lambda_1 in the run per missed sparsity, in pulls of the loss", ge=0.0, le=1e6
    )
    lambda_bound: float = option(
        3.0, "hardest push of the target, in pulls of the loss, times sparsity_weight", ge=0.0, le=1e3
    )
    lambda_start: float = option(0.5, "share of its bound at which lambda_2 starts", ge=0, le=1)
    start: float = option(
        2.0, "log alpha of a unit at the start; a gate below -1.6 is rather closed than open", ge=-4.6, le=4.6
    )
    start_from: str = option(
        "", "a criterion whose scores order the units at the start; empty: all start alike"
    )
    start_scope: str = option(
        "kind",
        "what a unit's score is compared with: those of its kind in all layers; al_am: by what stands out in "
        "a layer, all kinds in one list, as the scope of that name",
        choices=("kind", "al_am"),
    )
    start_samples: int = option(16, "training windows that criterion reads", ge=1, le=10**6)
    start_spread: float = option(
        1.0,
        "log alpha added per standard deviation of a unit's score above the mean, for two at most",
        ge=0.0,
        le=4.0,
    )
    lora_rank: int = option(8, "rank of the co-trained LoRA; 0 trains masks only", ge=0, le=1024)
    lora_alpha: float = option(16.0, "LoRA's scale: alpha / rank", ge=0.01, le=1e4)
    lora_targets: str = option(
        "all", "matrices that get LoRA; query_value: those that make queries and values", choices=TARGETS
    )
    lora_rate: float = option(1e-3, "highest learning rate of LoRA", ge=0.0, le=1.0)
    lora_schedule: str = option(
        "falling",
        "falling: that rate goes down to 0 from the first step; held: only once the plan is fixed",
        choices=("falling", "held"),
    )
    precision: str = option("auto", PRECISION_HELP, choices=PRECISIONS)
    measure_every: int = option(10, "steps between two perplexities of what would be cut now", ge=1, le=10**7)
    held: int = option(4, "windows kept apart for that perplexity", ge=1, le=4096)
    patience: int = option(
        0,
        "such perplexities without gain, once the plan is fixed, that end the training; 0 for all steps",
        ge=0,
        le=10**6,
    )
    checkpoint_every: int = option(25, "steps between two checkpoints", ge=1, le=10**7)

    @property
    def warmup_steps(self) -> int:
        """Steps until the target is at its full height."""
        return round(self.warmup * self.steps)

    @property
    def part(self) -> int:
        """Windows that a process reads at once, at most."""
        return self.batch // self.processes // self.accumulate

    @property
    def mask_step(self) -> float:
        """How far a mask may go in a step: far enough to cross half its range before the plan is fixed."""
        return max(self.mask_rate, min(_HALF_RANGE / max(self.settle_step, 1), _FASTEST))

    def lora_step(self, step: int) -> float:
        """LoRA's learning rate at a step: linear down to 0, from its first step or from `settle_step` on."""
        held = self.settle_step if self.lora_schedule == "held" else 0
        return self.lora_rate * min(1.0, (self.steps - step) / max(self.steps - held, 1))

    @property
    def settle_step(self) -> int:
        """The step from which the units that go are fixed."""
        return self.steps - round(self.settle * self.steps)


def check(settings: Settings, sparsity: float) -> None:
    """Raises SpecError where options contradict each other or the target, `sparsity` or below."""
    if settings.distillation == "progressive" and settings.stage_1 and settings.gap >= sparsity > 0:
        raise SpecError(
            f"gap must be below the sparsity, which is {sparsity:g}, got {settings.gap:g}; no snapshot would "
            f"ever teach. Write gap={sparsity / 2:g}, or stage_1=false."
        )
    if settings.distillation == "progressive" and settings.interval >= sparsity > 0:
        raise SpecError(
            f"interval must be below the sparsity, which is {sparsity:g}, got {settings.interval:g}; "
            f"no snapshot would be taken. Write interval={sparsity / 20:g}."
        )
    if settings.rule == "lora_gradient" and not settings.lora_rank:
        raise SpecError("rule=lora_gradient reads LoRA's gradients and lora_rank is 0; write lora_rank=8.")
    if settings.warmup + settings.settle > 1.0:
        raise SpecError(
            "warmup and settle are shares of the same steps and must not be more than 1 together, got "
            f"{settings.warmup:g} and {settings.settle:g}; lower one of them."
        )
    if settings.patience and not settings.settle:
        raise SpecError(
            f"patience counts once the plan is fixed, and settle=0 fixes it in the end, got "
            f"{settings.patience}; write settle=0.4, or patience=0."
        )
    share, left = divmod(settings.batch, settings.processes)
    if left:
        raise SpecError(
            f"processes must divide batch, which is {settings.batch}, got {settings.processes}; write "
            f"batch={(share + 1) * settings.processes}."
        )
    if share % settings.accumulate:
        whose = " / processes" if settings.processes > 1 else ""
        raise SpecError(f"accumulate must divide batch{whose}, which is {share}, got {settings.accumulate}.")


class NutePrune:
    """See `core.methods.Method`."""

    presets = PRESETS
    preset = "demo"

    def check(self, prune: PruneSpec, settings: Settings) -> None:
        """Raises SpecError where the options do not fit together, or not with what is asked."""
        check(settings, max([prune.sparsity, *prune.kind_sparsity.values()]))
        without = [kind for kind in prune.kinds if kind in _WITHOUT_LORA.get(settings.lora_targets, ())]
        if settings.rule == "lora_gradient" and without:
            raise SpecError(
                f"rule=lora_gradient ranks what has LoRA; with lora_targets={settings.lora_targets} none of "
                f"the matrices of {', '.join(without)} has; write lora_targets=all."
            )
        asked, usual = prune.settled(), PruneSpec(method=prune.method).settled()
        for name in (name for name, field in options_of(PruneSpec).items() if field.ranking):
            if (value := getattr(asked, name)) != (only := getattr(usual, name)):
                raise SpecError(
                    f"{name} must be {only or 'left out'} for a method that trains, got {value}; it would "
                    "undo what was learned, or change nothing. Leave it out, or rank with a criterion."
                )

    def start_from(self, options: Mapping[str, Any]) -> str | None:
        """The criterion whose scores order the units at the start.

        Magnitude is nothing but that order, and LoRA's gradients say nothing before the first step.
        """
        if options.get("rule") in ("magnitude", "lora_gradient") and not options.get("start_from"):
            return "l2"
        return options.get("start_from", Settings().start_from) or None

    def start_scope(self, options: Mapping[str, Any]) -> str:
        """What those scores are compared by."""
        return str(options.get("start_scope", Settings().start_scope))

    def start_samples(self, options: Mapping[str, Any]) -> int:
        """How many of the calibration windows that criterion reads."""
        return int(options.get("start_samples", Settings().start_samples))

    def apart(self, options: Mapping[str, Any]) -> int:
        """How many windows of the calibration text are kept apart to measure on."""
        return int(options.get("held", Settings().held))
