"""The folder that transformers reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.errors import ArtifactError
from core.runs.artifacts import read_metrics
from core.ship.records import Parcel, Route, Subject, Verdict, Written


def verdict(subject: Subject) -> Verdict:
    """Every pruned model can be saved as a folder for transformers, with code in it where layers differ."""
    heads = {(len(layer.heads.query), layer.heads.uniform) for layer in subject.layers if layer.heads}
    if (
        subject.narrower
        or subject.gaps
        or subject.plan.biases
        or len(subject.widths) > 1
        or len(heads) != 1
        or (0 in dict(heads).values())
    ):
        return Verdict(
            True,
            "layers differ from any config: with the code in the folder, trust_remote_code=True.",
        )
    return Verdict(True, "all layers are alike: as a plain stock model, without code if its family allows.")


def write(parcel: Parcel) -> Written:
    """Save the model anew, as every run saves it."""
    from core.models import saved
    from core.models.card_head import inherited
    from core.models.stored import stored_dtype

    parcel.progress(0, 2, "steps")
    model, tokenizer, plan = saved.load(parcel.model, trust_remote_code=parcel.trust_remote_code)
    parcel.progress(1, 2, "steps")
    graph = parcel.subject.graph
    facts = {**_measured(parcel.model), **inherited(parcel.model)}
    dtype = stored_dtype(parcel.model, model.config)
    saved.save(model, tokenizer, graph, plan, parcel.out, facts=facts, dtype=dtype)
    parcel.progress(2, 2, "steps")
    code = ", trust_remote_code=True" if (parcel.out / "modeling_pruned.py").is_file() else ""
    return Written(
        use=(
            "from transformers import AutoModelForCausalLM",
            f"model = AutoModelForCausalLM.from_pretrained(FOLDER{code})",
        )
    )


def _measured(model: Path) -> dict[str, Any]:
    """What the run that saved a model measured; empty where the folder lies elsewhere."""
    try:
        return read_metrics(model.parent)
    except ArtifactError:
        return {}


ROUTE = Route("hf", "transformers", verdict, write)
