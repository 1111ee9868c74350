"""What libraries raise over damaged or foreign files, and how that is said in a line."""

from __future__ import annotations

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from core.errors import ModelError

#: What reading a damaged or foreign model raises in transformers and safetensors.
UNREADABLE = (
    OSError, ValueError, LookupError, ImportError, RuntimeError, TypeError, AttributeError, ArithmeticError,
    AssertionError, SafetensorError, StrictDataclassError,
)  # fmt: skip


def unreadable(given: str, error: Exception) -> ModelError:
    """The error for what a library could not read, in one line."""
    fix = "give a complete download in safetensors, or another model"
    if "trust_remote_code" in str(error):
        fix = (
            "it brings code of its own: read that code, then allow it with trust_remote_code if you trust it"
        )
    return ModelError(f"{given} cannot be read: {short(error)}; {fix}.")


def short(error: Exception) -> str:
    """The first line of an error, and the second where that only announces it, without the full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return said.rstrip(". ")[:300]
