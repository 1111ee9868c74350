"""One file for llama.cpp."""

from __future__ import annotations

from core.ship.records import Route, Subject, Verdict


def verdict(subject: Subject) -> Verdict:
    """Whether llama.cpp can run a model of these shapes."""
    return Verdict(False, f"no writer for {subject.family} yet.")


ROUTE = Route("gguf", "llama.cpp", verdict)
