"""LoRA by peft on a pruned model, which reads the folder for transformers: there is nothing to write."""

from __future__ import annotations

from pathlib import Path

from core.ship.hf import code_in
from core.ship.records import Route, Subject, Verdict
from core.spec.export import ExportSpec


def verdict(subject: Subject) -> Verdict:
    """peft wraps matrices of any size; what repeats the outputs of a fused one does not see them."""
    uneven = [layer.attention for layer in subject.layers if layer.heads and not layer.heads.uniform]
    if any(attention and set(attention.queries) & set(attention.values) for attention in uneven):
        return Verdict(
            True,
            "LoRA on any matrix, but in some families the one that makes queries, keys and values together: "
            "its outputs are repeated where heads are uneven. The workbench's own recover trains it.",
        )
    return Verdict(True, "LoRA on any matrix, and merged again, as with any model.")


def use(subject: Subject, folder: Path, options: ExportSpec) -> tuple[str, ...]:
    """A program that puts LoRA on every matrix."""
    return (
        "from peft import LoraConfig, get_peft_model",
        "from transformers import AutoModelForCausalLM",
        "",
        f"model = AutoModelForCausalLM.from_pretrained({str(folder)!r}{code_in(folder)})",
        'model = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))',
        "model.print_trainable_parameters()",
    )


ROUTE = Route("peft", "peft", verdict, use)
