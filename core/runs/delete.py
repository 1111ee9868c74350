"""Remove a run that has ended, with all that it left."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from core.errors import ArtifactError, InputError, StorageError, storage_error
from core.results.words import size
from core.runs.artifacts import read_spec
from core.runs.watch import ACTIVE, list_runs, locked, read, worker_alive

#: What a folder is called from the moment it is no run any more until all of it is gone.
_GONE = ".gone-"


def size_of(run_dir: Path) -> int:
    """Bytes of all files of a run, as far as they can be read."""
    total = 0
    for folder, _, names in os.walk(run_dir):
        for name in names:
            with suppress(OSError):  # gone meanwhile
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def readers(run_dir: Path) -> list[str]:
    """Ids of the runs beside it that work on the model it left, or will, or did; newest first."""
    found = []
    for other in list_runs(run_dir.parent):
        with suppress(ArtifactError):  # a damaged run reads nothing
            model, within = read_spec(other).model, run_dir.absolute()
            if other != run_dir and any(
                Path(place).is_relative_to(within) for place in (model.source, model.adapter)
            ):
                found.append(other.name)
    return found


def delete(run_dir: Path) -> int:
    """Remove a run and everything in its folder; returns the bytes.

    It is renamed first, so that nobody ever sees half of it.

    Raises:
        InputError: it waits or is at work, or a run that does needs the model it left.
        StorageError: the folder cannot be written, or not all of it goes; the run is gone from the list then.
    """
    gone = run_dir.with_name(f"{_GONE}{uuid.uuid4().hex}")
    with locked(run_dir.parent):
        status = read(run_dir)
        if status.state in ("queued", *ACTIVE) or worker_alive(status):
            raise InputError(f"{run_dir.name} is {status.state}, or its worker is there: stop it first.")
        for name in readers(run_dir):
            other = read(run_dir.with_name(name))
            if other.state in ("queued", *ACTIVE):
                raise InputError(
                    f"{name} is {other.state} and needs the model of {run_dir.name}; stop it first."
                )
        try:
            run_dir.rename(gone)
        except OSError as error:
            raise storage_error(run_dir, error) from error
    freed = size_of(gone)
    for left in run_dir.parent.glob(f"{_GONE}*"):  # those, too, that were left when somebody pulled a plug
        if left != gone:
            shutil.rmtree(left, ignore_errors=True)
    try:
        shutil.rmtree(gone)
    except OSError as error:
        if not gone.exists():  # somebody who deleted another run swept it away
            return freed
        raise StorageError(
            f"{run_dir.name} is deleted, but {size(size_of(gone))} of it are left in {gone}: "
            f"{error.strerror or error}; remove that folder."
        ) from error
    return freed
