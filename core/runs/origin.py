"""Which runs were created here: only those are started from the queue, and may run a model's own code.

Consent is no file that could be copied along with a run. This installation has a key outside of every runs
folder; a run carries a code made with it from what it is asked and from its folder's number on the disk,
which no copy has.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path

from core.errors import storage_error
from core.files import DAMAGES, content, json_text, written_beside
from core.runs.artifacts import SPEC

ORIGIN = ".origin"
_KEY_BYTES = 32


def state_dir() -> Path:
    """Where this installation keeps its key: PRUNEVIZ_STATE_DIR, else a folder among the user's states."""
    chosen = os.environ.get("PRUNEVIZ_STATE_DIR")
    states = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(chosen) if chosen else Path(states) / "pruneviz"


def sign(run_dir: Path) -> None:
    """Say that this run was created here, as it is asked now. Raises StorageError."""
    try:
        code = _code(run_dir, _key())
    except DAMAGES as error:
        raise storage_error(run_dir, OSError(str(error))) from error
    with written_beside(run_dir / ORIGIN) as beside:
        beside.write_text(code, encoding="ascii")


def made_here(run_dir: Path) -> bool:
    """Whether this run was created by this installation, in this folder, with the spec that it has now."""
    try:
        return hmac.compare_digest(content(run_dir / ORIGIN), _code(run_dir, _key()).encode())
    except DAMAGES:
        return False


def _code(run_dir: Path, key: bytes) -> str:
    number, asked = os.stat(run_dir, follow_symlinks=False).st_ino, json.loads(json_text(run_dir / SPEC))
    asked.pop("extra", None)  # facts that the run adds itself
    return hmac.new(key, f"{number} {json.dumps(asked, sort_keys=True)}".encode(), hashlib.sha256).hexdigest()


def _key() -> bytes:
    """This installation's key; made on first use, for its user alone. Raises OSError."""
    path = state_dir() / "key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = path.with_name(f".key.{os.getpid()}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        with suppress(FileExistsError):  # another process was first
            os.link(beside, path)
        beside.unlink()
    key = content(path)
    if len(key) != _KEY_BYTES:
        raise OSError(f"{path} is no key of {_KEY_BYTES} bytes; remove it, and resume what waits")
    return key
