"""A source -> model, tokenizer: the demo, a hub id, a local folder, a GGUF file, or a pruned model.

Only safetensors and GGUF are read, never a pickle. `python -m core.models` prepares the demo model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from core.demo import DEMO_NAME, demo_folder, print_progress, read_gguf
from core.errors import ModelError
from core.plan.records import PruningPlan
from core.runs.artifacts import MODEL, PLAN, SPEC
from core.spec.model import ModelSpec

ACCEPTED = "'demo', a hub id such as 'org/name', a folder, a .gguf file, or a run directory"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
#: What reading a damaged or foreign model raises in transformers and safetensors.
_UNREADABLE = (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError)


@dataclass(frozen=True)
class Loaded:
    """A model that is ready, and what names it.

    Attributes:
        plan: of a pruned model, else None.
        revision: the commit of a model from the hub, else None.
        folder: where its files lie; None for a model that was just read from the hub.
    """

    model: Any
    tokenizer: Any
    name: str
    config: PretrainedConfig
    dtype: torch.dtype
    device: torch.device
    plan: PruningPlan | None = None
    revision: str | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Source:
    """What a source turned out to be.

    Attributes:
        where: a folder, or a hub id for kind `hub`.
        file: the name of the GGUF file in that folder.
        revision: the hub's commit.
    """

    kind: Literal["folder", "gguf", "hub", "pruned"]
    where: str
    name: str
    file: str | None = None
    revision: str | None = None

    def arguments(self) -> dict[str, Any]:
        """What every `from_pretrained` takes to read from here."""
        found: dict[str, Any] = {"revision": self.revision} if self.revision else {}
        return {**found, "gguf_file": self.file} if self.file else found


def load(spec: ModelSpec, *, attn_implementation: str = "sdpa") -> Loaded:
    """Load a decoder in evaluation mode.

    Raises:
        ModelError: no such model, not a decoder, or it cannot be read; says what was got and what to do.
        ArtifactError: a pruned model whose plan is damaged.
    """
    device = pick_device(spec.device)
    dtype = pick_dtype(spec.dtype, device)
    source = resolve(spec.source)
    plan: PruningPlan | None = None
    if source.kind == "pruned":
        from core import export

        model, tokenizer, plan = export.load(Path(source.where), device=device, dtype=dtype)
        if tokenizer is None:
            raise ModelError(
                f"{spec.source} was saved without a tokenizer; copy the dense model's files beside it."
            )
    else:
        _config(source, spec.source, spec.trust_remote_code)
        tokenizer = _tokenizer(source, spec.source, spec.trust_remote_code)
        model = _weights(source, spec, dtype).to(device)
    if attn_implementation != "sdpa":
        model.set_attn_implementation(attn_implementation)
    folder = None if source.kind == "hub" else Path(source.where)
    return Loaded(
        model.eval(), tokenizer, source.name, model.config, dtype, device, plan, source.revision, folder
    )


def load_config(source: str, trust_remote_code: bool = False) -> PretrainedConfig:
    """The config alone, checked to be a decoder's. Raises ModelError."""
    return _config(resolve(source), source, trust_remote_code)


def resolve(source: str) -> Source:
    """Find out what a source is, without reading weights. Raises ModelError."""
    if source == "demo":
        return Source("folder", str(demo_folder(print_progress)), DEMO_NAME)
    path = Path(source).expanduser()
    if path.name == "config.json" and path.is_file():
        path = path.parent
    if path.is_dir():
        return _resolve_folder(path)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(f"{source} is a file, but no .gguf file; give the folder it lies in.")
        return Source("gguf", str(path.parent), path.stem, path.name)
    if path.is_absolute() or source.startswith((".", "~")) or path.suffix.lower() == ".gguf":
        raise ModelError(f"There is no folder or file {source}; give {ACCEPTED}.")
    if not _HUB_ID.fullmatch(source):
        raise ModelError(f"'{source}' is no model; give {ACCEPTED}.")
    return _resolve_hub(source)


def _resolve_folder(path: Path) -> Source:
    name = path.resolve().name
    if (path / SPEC).is_file():
        if not (path / MODEL / "config.json").is_file():
            raise ModelError(f"Run {name} has left no model (yet); give a finished pruning run.")
        return Source("pruned", str(path / MODEL), name)
    if (path / PLAN).is_file():
        return Source("pruned", str(path), name)
    if not (path / "config.json").is_file():
        hint = next((f"; give the file {file} instead" for file in sorted(path.glob("*.gguf"))), "")
        raise ModelError(f"Folder {path} has no config.json, so it holds no model in the hub's layout{hint}.")
    return Source("folder", str(path), name)


def _resolve_hub(source: str) -> Source:
    """Ask the hub once, with a short time limit; a model in the local cache serves without it."""
    from huggingface_hub import model_info, try_to_load_from_cache
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        GatedRepoError,
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
    )

    hint = " Did you mean 'demo'?" if source.lower().startswith("demo") else ""
    try:
        revision = model_info(source, timeout=10).sha
    except GatedRepoError as error:
        raise ModelError(f"'{source}' is gated; accept its terms on the hub and log in there.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"There is no model '{source}' here or on the hub.{hint} Give {ACCEPTED}."
        ) from error
    except (OSError, HTTPError) as error:
        cached = try_to_load_from_cache(source, "config.json")
        if isinstance(cached, str):  # …/snapshots/<commit>/config.json
            snapshot = Path(cached).parent
            return Source("folder", str(snapshot), source, revision=snapshot.name)
        raise ModelError(
            f"There is no folder or file '{source}', and the hub cannot be reached to look there ({error})."
            f"{hint} Give {ACCEPTED}."
        ) from error
    return Source("hub", source, source, revision=revision)


def _config(source: Source, given: str, trust_remote_code: bool) -> PretrainedConfig:
    try:
        config = AutoConfig.from_pretrained(
            source.where, trust_remote_code=trust_remote_code, **source.arguments()
        )
    except _UNREADABLE as error:
        raise _unreadable(given, error) from error
    check_decoder(config, given)
    return config


def check_decoder(config: PretrainedConfig, given: str) -> None:
    """Raises ModelError if this is an encoder, or an encoder with a decoder."""
    kind = config.model_type
    remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    masked = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and getattr(config, "is_decoder", None) is False
    if config.is_encoder_decoder:
        found = "an encoder with a decoder (sequence to sequence)"
    elif masked or not (remote or kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        found = "an encoder, or another model that does not predict the next token"
    else:
        return
    name = ", ".join(config.architectures or []) or type(config).__name__
    raise ModelError(
        f"{given} is {name} ({kind}): {found}. Only decoders that predict the next token are accepted, "
        "those that AutoModelForCausalLM loads, for example Llama, Mistral, Qwen or GPT-2."
    )


def _tokenizer(source: Source, given: str, trust_remote_code: bool) -> Any:
    try:
        return AutoTokenizer.from_pretrained(
            source.where, trust_remote_code=trust_remote_code, **source.arguments()
        )
    except _UNREADABLE as error:
        raise ModelError(
            f"{given} has no tokenizer that can be read ({_short(error)}); put its files beside the weights."
        ) from error


def _weights(source: Source, spec: ModelSpec, dtype: torch.dtype) -> Any:
    if source.kind == "folder":
        _refuse_pickles(Path(source.where))
    arguments = {"dtype": dtype, "trust_remote_code": spec.trust_remote_code}
    try:
        if source.file:
            return read_gguf(Path(source.where) / source.file, **arguments)
        loader: Any = AutoModelForCausalLM
        model, report = loader.from_pretrained(
            source.where, use_safetensors=True, output_loading_info=True, **arguments, **source.arguments()
        )
    except _UNREADABLE as error:
        raise _unreadable(spec.source, error) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{spec.source} lacks {len(missing)} of the model's weights, first {missing[0]}; "
            "give a complete decoder checkpoint."
        )
    return model


def _refuse_pickles(folder: Path) -> None:
    """Raises ModelError if a folder has only weights that would have to be unpickled."""
    pickled = sorted(file.name for end in ("bin", "pt", "pth", "ckpt") for file in folder.glob(f"*.{end}"))
    if pickled and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} has its weights in {pickled[0]} only, a pickle, which can run code when it is read; "
            "save the model as safetensors, as save_pretrained of transformers does, and give that folder."
        )


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA, else MPS, else the CPU. Raises ModelError for a device that is not here."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"Unknown device '{name}'; write auto, cpu, cuda, cuda:0 or mps.") from error
    count = {"cpu": 1, "cuda": torch.cuda.device_count() if cuda else 0, "mps": int(mps)}.get(device.type, 0)
    if (device.index or 0) >= count:
        here = ["cpu"] + ["cuda"] * cuda + ["mps"] * mps
        raise ModelError(f"Device '{name}' is not here; this machine has {', '.join(here)}. Write auto.")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on CUDA and float32 elsewhere. Raises ModelError."""
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in names:
        raise ModelError(f"Unknown dtype '{name}'; write auto, {', '.join(names)}.")
    return names[name]


def _unreadable(given: str, error: Exception) -> ModelError:
    fix = "give a complete download in safetensors, or another model"
    if "trust_remote_code" in str(error):
        fix = (
            "it brings code of its own: read that code, then allow it with trust_remote_code if you trust it"
        )
    return ModelError(f"{given} cannot be read: {_short(error)}; {fix}.")


def _short(error: Exception) -> str:
    """The first line of an error, without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")[:300]


if __name__ == "__main__":
    print(demo_folder(print_progress))
