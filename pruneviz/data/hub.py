"""Models on the hub: found by name, and what can be said of one before it is loaded.

The hub is asked only when somebody searches there, and nothing waits for it longer than `WAIT_S`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from core.errors import DataError
from core.files import read_record
from core.models.hub import PATIENCE, answer_of
from core.results import words
from pruneviz.data.cards import Card, card_from_config, refusal_of

T = TypeVar("T")
WAIT_S = PATIENCE
#: Found so many; more are found faster by a longer name.
MOST = 20
TOLD = ("config", "gated", "safetensors")
_TERMS = "It is gated: accept its terms at {}/{}, then log in with hf auth login."


def offline() -> bool:
    """Whether the hub must not be asked (`HF_HUB_OFFLINE`)."""
    from huggingface_hub.constants import is_offline_mode

    return is_offline_mode()


def search(name: str) -> list[tuple[str, str]]:
    """(label, id) of models with this in their name whose weights are safetensors, those used most first.

    Raises:
        DataError: the hub cannot be asked.
    """
    api = _api()
    asked = {"search": name, "filter": "safetensors", "sort": "downloads", "limit": MOST}
    models = _asked(lambda: list(api.list_models(**asked, expand=[*TOLD, "downloads"])), api.endpoint)
    return [(_label(model), model.id) for model in models]


def describe(source: str) -> Card:
    """What the hub says of a model, and its config: size, whether its terms must be accepted, refusals.

    Raises:
        DataError: the hub cannot be asked, or there is no such model.
    """
    api = _api()
    told = _asked(lambda: api.model_info(source, expand=[*TOLD]), api.endpoint)
    config = _config(api, source)
    refusal = refusal_of(config, source) if config is not None else _TERMS.format(api.endpoint, source)
    numbers = dict(told.safetensors.parameters) if told.safetensors else {}
    card = card_from_config(source, source, config or told.config or {})
    return replace(
        card,
        access="gated" if told.gated else "open to everybody",
        params=sum(numbers.values()) or None,
        stored_bytes=sum(map(_bytes, numbers, numbers.values())) or None,
        stored_dtype=", ".join(sorted(numbers)),
        refusal=refusal,
        tied=card.tied if config else None,
    )


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi()


def _config(api: Any, source: str) -> dict[str, Any] | None:
    """A model's config; None where it is not given to whoever asks."""
    from huggingface_hub.errors import GatedRepoError

    try:
        file = _asked(lambda: api.hf_hub_download(source, "config.json"), api.endpoint)
    except GatedRepoError:
        return None
    return read_record(Path(file).resolve(), dict[str, Any])  # the cache holds links


def _label(model: Any) -> str:
    """An id with what tells it apart."""
    size = f"{words.count(model.safetensors.total)} parameters" if model.safetensors else ""
    family = str((model.config or {}).get("model_type", ""))
    used = f"{words.count(model.downloads)} downloads a month" if model.downloads else ""
    gated = "gated: its owner wants terms accepted" if model.gated else ""
    return " · ".join(filter(None, [model.id, size, family, gated, used]))


def _bytes(dtype: str, count: int) -> int:
    """Of so many numbers, by the bits in the name of their type; truth values take a byte."""
    bits = re.search(r"\d+", dtype)
    return count * int(bits[0] if bits else 8) // 8


def _asked(ask: Callable[[], T], endpoint: str) -> T:
    """What `ask` returns, if that comes within `WAIT_S`.

    Raises:
        GatedRepoError: as `ask`.
        DataError: anything else went wrong.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return answer_of(ask, WAIT_S)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError as error:
        raise DataError(f"{endpoint} has no such model, or it is private.") from error
    except TimeoutError as error:
        raise DataError(f"{endpoint} cannot be asked: {error}.") from None
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{endpoint} cannot be asked: {reason}") from error
