"""The folder that transformers reads."""

from __future__ import annotations

from core.ship.records import Parcel, Route, Subject, Verdict, Written


def verdict(subject: Subject) -> Verdict:
    """Every pruned model can be saved as a folder for transformers."""
    return Verdict(True, "Transformers reads the folder.")


def write(parcel: Parcel) -> Written:
    """Save the model anew, as every run saves it."""
    from core.models import saved
    from core.models.stored import stored_dtype

    parcel.progress(0, 2, "steps")
    model, tokenizer, plan = saved.load(parcel.model, trust_remote_code=parcel.trust_remote_code)
    parcel.progress(1, 2, "steps")
    graph = parcel.subject.graph
    saved.save(model, tokenizer, graph, plan, parcel.out, dtype=stored_dtype(parcel.model, model.config))
    parcel.progress(2, 2, "steps")
    return Written()


ROUTE = Route("hf", "transformers", verdict, write)
