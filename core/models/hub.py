"""Rows of a data set on the hub, streamed; where the hub does not answer, of a copy in the cache.

Nothing waits for the hub's answer longer than some seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

from core.errors import DataError

T = TypeVar("T")
#: How long the hub may take to answer, in seconds.
PATIENCE = 6.0
_INSTEAD = "Give 'bundled', a file, or a folder that holds it (--data-dir)"


class UnreachableError(DataError):
    """The hub does not answer, and the local cache has no copy."""


def hub_rows(source: str, config: str, split: str, *, revision: str = "", files: str = "") -> Iterator[Any]:
    """Stream the rows of a data set, so that only what is read is downloaded.

    Args:
        source: `owner/name`, or a folder in the hub's layout.
        config, split: empty for the only config, and for `train`, or the first split if it has none.
        revision, files: see `core.spec.texts.NamedText`.

    Raises:
        UnreachableError: the hub does not answer within seconds. DataError: there is no such data set, config
            or split.
    """
    # Imported here because they take a second or two.
    from datasets import get_dataset_split_names, load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        where = source if Path(source).is_dir() else _reached(source, revision)
        if where is None:
            with _offline():
                yield from load_dataset(source, config or None, split=split or "train")
            return
        if files:
            pattern = files.format(split=split)
            more = {"revision": revision} if where == source else {}
            yield from load_dataset(where, data_files=pattern, split="train", streaming=True, **more)
            return
        splits = get_dataset_split_names(where, config or None)
        split = split or ("train" if "train" in splits else splits[0])
        yield from load_dataset(where, config or None, split=split, streaming=True)
    except (OSError, ValueError, RuntimeError, HTTPError, DatasetsError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        asked = ":".join((source, config, split)).rstrip(":")
        raise DataError(
            f"'{asked}' is neither a file nor a data set that can be read from the hub ({reason}). "
            f"{_INSTEAD}, or a data set as owner/name:config:split:column."
        ) from error


def _reached(source: str, revision: str) -> str | None:
    """The id if the hub answers; else the folder of a downloaded copy, None for one that `datasets` prepared.

    Raises:
        UnreachableError: there is neither. DataError: the hub has no such data set.
    """
    from datasets import config
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        GatedRepoError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        answer_of(lambda: HfApi().dataset_info(source, timeout=PATIENCE), PATIENCE)
        return source
    except GatedRepoError as error:
        raise DataError(f"'{source}' is gated; accept its terms on the hub and log in there.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise DataError(f"There is no data set '{source}' on the hub. {_INSTEAD}.") from error
    except (OSError, HTTPError) as error:
        try:
            copy = snapshot_download(
                source, repo_type="dataset", revision=revision or None, local_files_only=True
            )
            return str(copy)
        except LocalEntryNotFoundError:
            if (Path(config.HF_DATASETS_CACHE) / source.replace("/", "___")).is_dir():
                return None
        raise UnreachableError(
            f"'{source}' is no file or folder here, and the hub cannot be reached to look there ({error}); "
            f"the cache has no copy either. {_INSTEAD}."
        ) from error


def answer_of(ask: Callable[[], T], seconds: float) -> T:
    """What `ask` returns or raises. Nobody waits longer: the hub's client tries again and again.

    Raises:
        TimeoutError: there is no answer by then.
    """
    answers: SimpleQueue[tuple[T | None, Exception | None]] = SimpleQueue()

    def work() -> None:
        try:
            answers.put((ask(), None))
        except Exception as error:  # handed over: the waiting side raises it
            answers.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None
    if error is not None:
        raise error
    return cast(T, answer)


@contextmanager
def _offline() -> Iterator[None]:
    """Let `datasets` read its cache at once instead of trying the hub for half a minute first."""
    from datasets import config

    before, config.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before
