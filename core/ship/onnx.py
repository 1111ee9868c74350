"""A graph for onnxruntime."""

from __future__ import annotations

from core.ship.records import Route, Subject, Verdict


def verdict(subject: Subject) -> Verdict:
    """Whether the model can be written as an ONNX graph."""
    return Verdict(False, f"no writer for {subject.family} yet.")


ROUTE = Route("onnx", "onnxruntime", verdict)
