"""Files given to the hub: looked at in a dry run, or uploaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError  # type: ignore[attr-defined]
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from core.errors import SpecError, StorageError

_GIB = 2**30


def check(repo: str | None, dry: bool) -> None:
    """Raises SpecError for a name that no repository has, and where nobody is logged in to write it."""
    if repo is None:
        if dry:
            raise SpecError("--dry-run says what would be uploaded; name the repository with --push-to.")
        return
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise SpecError(f"--push-to takes owner/name, got {repo!r}: {error}") from error
    if "/" not in repo:
        raise SpecError(f"--push-to takes owner/name, got {repo!r}; write whose it shall be.")
    if not dry and get_token() is None:
        raise SpecError(
            f"Nobody is logged in to the hub here, so {repo} cannot be written: `hf auth login`, or set "
            "HF_TOKEN; --dry-run only says what would be uploaded."
        )


def push(folder: Path, repo: str, files: Mapping[str, int], *, dry: bool, say: Callable[[str], None]) -> str:
    """Upload a folder, whose files have these sizes, as a private repository; or say what would be uploaded.

    Returns:
        Its address, or an empty text after a dry run.

    Raises:
        StorageError: the hub refuses, or cannot be reached; the folder stays.
    """
    total = f"{len(files)} files, {sum(files.values()) / _GIB:.2f} GiB"
    if dry:
        say(f"Would create {repo} as a private repository, and upload {total}: {', '.join(files)}")
        return ""
    say(f"Uploading {total} to {repo}")
    try:
        hub = HfApi()
        made = hub.create_repo(repo, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload a pruned model")
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
        raise StorageError(
            f"The hub did not take {repo}: {why}. Check its name, your rights to it (`hf auth login`) and "
            f"the network; the files are kept in {folder}."
        ) from error
    return str(made)
