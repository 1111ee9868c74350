"""The folder that transformers reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.errors import ArtifactError
from core.runs.artifacts import read_metrics
from core.ship.records import Parcel, Route, Subject, Verdict, Written
from core.spec.export import ExportSpec


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
    return Written()


def use(subject: Subject, folder: Path, options: ExportSpec) -> tuple[str, ...]:
    """A program that reads the folder and, where a tokenizer lies there, lets the model go on with a text."""
    lines = [f"model = AutoModelForCausalLM.from_pretrained(folder{code_in(folder)})"]
    if not (folder / "tokenizer_config.json").is_file():
        return ("from transformers import AutoModelForCausalLM", "", f"folder = {str(folder)!r}", *lines)
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"folder = {str(folder)!r}",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        *lines,
        'inputs = tokenizer("The capital of France is", return_tensors="pt")',
        "tokens = model.generate(**inputs, max_new_tokens=24, do_sample=False)",
        "print(tokenizer.decode(tokens[0], skip_special_tokens=True))",
    )


def code_in(folder: Path) -> str:
    """The argument that lets transformers run the code in a folder, if there is some."""
    return ", trust_remote_code=True" if any(folder.glob("*.py")) else ""


def _measured(model: Path) -> dict[str, Any]:
    """What the run that saved a model measured; empty where the folder lies elsewhere."""
    try:
        return read_metrics(model.parent)
    except ArtifactError:
        return {}


ROUTE = Route("hf", "transformers", verdict, use, write)
