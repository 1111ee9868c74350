"""LoRA adapters beside, instead of, or for a model: left out with a note, named, or merged on request."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import UNREADABLE, ModelError, short

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
#: Kinds of peft that add tokens or layers of their own instead of numbers to weights.
_NOT_IN_WEIGHTS = (
    "PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT",
)  # fmt: skip


def base_of(folder: Path) -> str:
    """The name of the model that an adapter is for, as its config says. Raises ModelError."""
    return str(_told(folder).get("base_model_name_or_path") or "a model that it does not name")


def _told(folder: Path) -> dict[str, Any]:
    """What an adapter's config says. Raises ModelError."""
    try:
        return dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"{folder / CONFIG} cannot be read: {short(error)}; give a complete adapter."
        ) from error


def alone(given: str, base: str) -> ModelError:
    """The error for an adapter where a model is wanted."""
    return ModelError(
        f"{given} is an adapter of {base}, not a model; merge it into that, or give both: the model, and the "
        f"adapter with --adapter {given}."
    )


def left_out(folder: Path | None, given: str) -> list[str]:
    """A note on an adapter that lies beside a full model, and does not count."""
    if folder is None or not (folder / CONFIG).is_file():
        return []
    return [
        f"{given} has files of an adapter of {base_of(folder)} beside the full model: the model is read "
        "without it; to merge an adapter give it with --adapter"
    ]


@contextmanager
def without_adapter(folder: Path) -> Iterator[Path]:
    """The folder as it is without left-over files of an adapter, which transformers puts into the model."""
    if not (folder / CONFIG).is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory() as beside:
        view = Path(beside) / folder.resolve().name
        view.mkdir()
        for path in folder.iterdir():
            if not path.name.startswith("adapter_"):
                (view / path.name).symlink_to(path.resolve(), target_is_directory=path.is_dir())
        yield view


def adapter_folder(adapter: str) -> Path:
    """Where an adapter lies: a folder, or what the hub or its cache has under a name. Raises ModelError."""
    folder = Path(adapter).expanduser()
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(adapter, allow_patterns=[CONFIG, WEIGHTS]))
        except UNREADABLE as error:
            raise ModelError(
                f"There is no adapter '{adapter}', here or on the hub ({short(error)})."
            ) from error
    check_adapter(folder, adapter)
    return folder


def check_adapter(folder: Path, given: str) -> None:
    """Raise ModelError where an adapter lacks files, or is of a kind that cannot be merged."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(
                f"{given} is no adapter that can be merged: it has no {name}; save it with peft."
            )
    kind = str(_told(folder).get("peft_type"))
    if kind in _NOT_IN_WEIGHTS:
        raise ModelError(
            f"{given}, an adapter of {base_of(folder)}, cannot be merged: it is {kind}, which adds no "
            "numbers to weights; only such adapters (LoRA) can be."
        )


def merge(model: Any, adapter: str, given: str) -> Any:
    """The model with an adapter in its weights.

    Raises:
        ModelError: it is no adapter of this model, or of a kind that cannot be merged.
    """
    from peft import PeftModel

    folder = adapter_folder(adapter)
    problem = f"{adapter}, an adapter of {base_of(folder)}, cannot be merged into {given}"
    try:
        with warnings.catch_warnings():
            # peft asks a model for what transformers renamed.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            with_layers = PeftModel.from_pretrained(model, str(folder))
        if not hasattr(with_layers.base_model, "merge_and_unload"):
            raise ModelError(
                f"{problem}: it adds no numbers to weights; only such adapters (LoRA) can be merged."
            )
        return with_layers.merge_and_unload(safe_merge=True)
    except UNREADABLE as error:
        raise ModelError(f"{problem}: {short(error)}; give the model that it was trained on.") from error
