"""From a saved model to the files of a format: checked first, then written whole or not at all."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

from core.errors import ModelError, SpecError, storage_error
from core.files import all_or_nothing
from core.models.sources import resolve
from core.results.exported import Exported
from core.ship import hub
from core.ship.records import Parcel, Route, subject_of
from core.ship.routes import require
from core.spec.run import RunSpec


def check(spec: RunSpec) -> Route:
    """Find what is wrong with an export before anything is written. Returns its route.

    Raises:
        ModelError: there is no pruned model. SpecError: the folder is there, or the format cannot hold the
            model. StorageError: no room. ArtifactError: the model's files are damaged.
    """
    source = resolve(spec.model.source)
    if source.kind != "pruned":
        raise ModelError(
            f"{spec.model.source} is not pruned, and other tools export it as it is; give a finished pruning "
            "run: its id or its folder."
        )
    model = Path(source.where)
    subject = subject_of(model)
    route = require(spec.export.to, subject)
    if route.ready is not None:
        route.ready(subject, model, spec.export)
    hub.check(spec.export.push_to, spec.export.dry_run)
    if spec.export.out is not None:
        out = Path(spec.export.out)
        _check_free(out)
        _check_room(out, weights_bytes(model))
    return route


def deliver(
    spec: RunSpec,
    out: Path,
    say: Callable[[str], None],
    progress: Callable[..., None],
    note: Callable[[Exported], None],
) -> Exported:
    """Write the files of a format into `out`, which appears whole or not at all.

    Args:
        note: is told what was written before `out` appears, so that whoever is interrupted knows whose it is.

    Raises:
        PruneError: as `check`, or what the writer meets; StopRequested.
    """
    model = Path(resolve(spec.model.source).where)
    subject = subject_of(model)
    route = require(spec.export.to, subject)
    assert route.write is not None, "the spec offers formats that can be written"
    with all_or_nothing(out, weights_bytes(model)) as beside:
        parcel = Parcel(subject, model, beside, spec.export, spec.model.trust_remote_code, say, progress)
        written = route.write(parcel)
        files = {str(path.relative_to(beside)): path.stat().st_size for path in sorted(beside.rglob("*"))
                 if path.is_file()}  # fmt: skip
        if spec.export.out is not None:
            _check_free(out)  # another export may have written there meanwhile
        looked_at, final = str(beside.absolute()), str(out.absolute())
        use = [line.replace(looked_at, final) for line in route.use(subject, Path(looked_at), spec.export)]
        exported = Exported(route.name, str(out), files, use, list(written.notes))
        note(exported)
    return exported


def weights_bytes(model: Path) -> int:
    """How large a model's weights are on disk."""
    return sum(path.stat().st_size for path in model.glob("*.safetensors"))


def _check_free(out: Path) -> None:
    """Raises SpecError if there is something where an export shall be written."""
    if out.exists():
        raise SpecError(f"--out {out} is there already; give a folder that is not, or remove it.")


def _check_room(out: Path, size: int) -> None:
    """Raises StorageError if so much does not fit where `out` will be."""
    there = next((folder for folder in out.absolute().parents if folder.is_dir()), Path("/"))
    if shutil.disk_usage(there).free < size:
        raise storage_error(out, OSError(errno.ENOSPC, "No space left on device"))
