"""Every error the workbench raises on purpose.

PruneError                  anything below; `str(error)` says what, what was got, and what to do
├── InputError              the request is wrong; the command line answers with exit code 2
│   ├── SpecError           a field of a RunSpec is out of range or of the wrong type
│   ├── UnknownNameError    no such criterion, method, layer, text or run; lists what there is
│   ├── ModelError          no such model, not a decoder, or it cannot be read
│   └── DataError           a text is missing, empty or too short
├── NotPrunableError        a coupling cannot be followed, or a plan asks for what cannot go
├── TrainingError           a training that cannot go on, because its loss is no number
├── ArtifactError           a file in a run directory is missing or damaged
├── StorageError            a folder cannot be written, or the disk is full
├── LaunchError             a worker or the engine could not be started, or has died
└── StopRequested           somebody asked this run to stop; what is done so far is kept
"""

import errno
import os
from pathlib import Path

from safetensors import SafetensorError

#: What reading damaged or foreign files raises in the libraries that do it.
UNREADABLE = (
    OSError, ValueError, LookupError, ImportError, RuntimeError, TypeError, AttributeError, ArithmeticError,
    AssertionError, SafetensorError,
)  # fmt: skip


class PruneError(Exception):
    """Base of every error raised on purpose."""


class InputError(PruneError):
    """The request is wrong; nothing was started."""


class SpecError(InputError):
    """A field of a `RunSpec` is out of range or of the wrong type."""


class UnknownNameError(InputError):
    """A name that is not registered; the message lists what is."""


class ModelError(InputError):
    """A model that does not exist, is no decoder, or cannot be read."""


class DataError(InputError):
    """A text that is missing, empty or too short."""


class NotPrunableError(PruneError):
    """A coupling that cannot be followed, or a plan that asks for what cannot go."""


class TrainingError(PruneError):
    """A training that cannot go on, because its loss is no number."""


class ArtifactError(PruneError):
    """A file in a run directory that is missing or damaged."""


class StorageError(PruneError):
    """A folder that cannot be written, or a full disk."""


class LaunchError(PruneError):
    """A worker or the engine that could not be started, or has died."""


class StopRequested(PruneError):
    """Raised inside a worker between two steps once somebody asked the run to stop."""


def storage_error(path: Path, error: Exception) -> StorageError:
    """What cannot be written, why, and what to do."""
    full = full_disk(error)
    fix = "free some space" if full else "choose another folder with --runs-dir"
    why = getattr(error, "strerror", None) or full or error
    return StorageError(f"{path} cannot be written: {why}; {fix}.")


def full_disk(error: Exception) -> str:
    """The words of an error that says that no room is left, else none.

    safetensors and torch raise classes of their own, which have no number but these words.
    """
    for number in (errno.ENOSPC, errno.EDQUOT):
        said = (os.strerror(number), f"os error {number}")
        if getattr(error, "errno", None) == number or any(words in str(error) for words in said):
            return os.strerror(number)
    return ""


def unreadable(given: str, error: Exception) -> ModelError:
    """The error for a model that a library could not read, in one line."""
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
