"""Runs of NutePrune that can be asked for by name: the demo model's, and the paper's."""

from __future__ import annotations

from typing import Any

#: The paper's pruning stage (Section 4.1): 20,000 windows of 512 tokens of C4, 16 a step, 7 epochs.
_WINDOWS, _LENGTH, _BATCH, _EPOCHS = 20_000, 512, 16, 7


def _paper(sparsity: float, warmup: int) -> dict[str, Any]:
    """The paper's run of a 7B model, pruned and then fine-tuned.

    Values without a word are from Section 4.1. "Released" is `scripts/cotrain.sh`, or for fine-tuning
    `scripts/finetune_alpaca.sh`, of github.com/Lucius-lsr/NutePrune. The multipliers are ours: see
    `core.nuteprune.lagrangian`.

    Args:
        warmup: epochs in which the target rises.
    """
    return {
        "calibration.name": "c4",
        "calibration.samples": _WINDOWS,
        "calibration.length": _LENGTH,
        "prune.sparsity": sparsity,
        "prune.kinds": ("query_head", "ffn_channel", "residual_channel"),
        "prune.options": {
            "steps": _EPOCHS * _WINDOWS // _BATCH, "batch": _BATCH,
            "accumulate": 4,  # ours, for memory: the released code forgets activations and makes them again
            "warmup": warmup / _EPOCHS, "settle": 0.0, "gap": 0.1, "interval": 0.01,
            "last": round(0.1 / sparsity, 9),  # released: as many parts of stage 2 as there are in a gap
            # Released: 0.9 of the layer loss beside 0.1 of the divergence, summed over a window's tokens.
            "layer_weight": 0.9 / (0.1 * _LENGTH),
            "start": 4.595,  # released: gates are open with a probability of 0.99
            "mask_rate": 0.1, "lora_rate": 1e-3,
            "lora_rank": 8, "lora_alpha": 8.0, "lora_targets": "query_value",  # released
            "lora_schedule": "falling",  # released
            "measure_every": 100, "held": 32, "checkpoint_every": 250,
        },
        "recover.method": "lora",
        "recover.data": "alpaca",
        "recover.epochs": 3,
        # All that follows is released.
        "recover.targets": "all", "recover.rank": 8, "recover.alpha": 8.0, "recover.dropout": 0.0,
        "recover.learning_rate": 1e-4, "recover.warmup": 0,
        "recover.batch": _BATCH, "recover.length": _LENGTH,
    }  # fmt: skip


#: Ten minutes of the demo model: 1.61 times dense on WikiText-2 from C4, at 20 %; docs/measured.md.
_DEMO = {
    "distillation": "dense", "next_token": 0.5, "temperature": 1.0, "warmup": 0.15, "settle": 0.75,
    "lora_schedule": "held", "start": 2.0, "start_spread": 2.0, "start_from": "ifv",
    "start_scope": "al_am", "start_samples": 32,
}  # fmt: skip
#: Preset -> what it changes of a spec, by dotted path; `prune.options` are the method's own.
PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "calibration.samples": 600,
        "calibration.length": 128,
        "prune.options": _DEMO,
    },
    # NutePrune, then the dense model teaches what is left: stages of one run.
    "demo-distill": {
        "calibration.samples": 600,
        "calibration.length": 128,
        "prune.options": _DEMO,
        "recover.method": "distill",
        "recover.next_token": 0.5,
        "recover.learning_rate": 1e-3,
        "recover.warmup": 10,
        "recover.steps": 100,
        "recover.batch": 8,
        "recover.length": 128,
        "recover.eval_every": 25,
        "recover.held": 32,
    },
    "paper-7b-20": _paper(0.2, warmup=4),
    "paper-7b-25": _paper(0.25, warmup=1),  # released, in `scripts/train_mask.sh`; the paper does not say
    "paper-7b-50": _paper(0.5, warmup=1),
}
