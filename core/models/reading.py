"""`python -m core.models.reading FOLDER PROBE`: another process reads a saved folder, and compares."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from core.errors import ArtifactError, PruneError
from core.graph.classes import auto_class
from core.models.portable import CODE
from core.models.readback import Probe, last_logits
from core.models.saved import load
from core.results.agreement import Agreement


def compare(folder: Path, path: Path) -> list[Agreement]:
    """Read a folder every way it is meant to be read, and compare it with a probe. Raises PruneError."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["facts"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dict)
    made = Probe(**{**facts, "modules": tuple(facts["modules"])}, **tensors)
    for name in made.modules:
        importlib.import_module(name)
    return [_agreement(name, model, made) for name, model in _readings(folder, made)]


def _readings(folder: Path, made: Probe) -> Iterator[tuple[str, PreTrainedModel]]:
    dtype, trust = getattr(torch, made.dtype), made.trust_remote_code
    yield (
        f"by the workbench {made.extent}",
        load(folder, device=made.device, dtype=dtype, trust_remote_code=trust)[0],
    )
    if made.stock:
        own = (folder / f"{CODE}.py").is_file()  # written by this project, whatever else is trusted
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust or own)
        loader: Any = auto_class(config) or AutoModelForCausalLM
        model = loader.from_pretrained(folder, dtype=dtype, trust_remote_code=trust or own).eval()
        yield f"by transformers {made.extent}", model.to(made.device)
    if (folder / "tokenizer_config.json").is_file():
        AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)


def _agreement(name: str, model: PreTrainedModel, made: Probe) -> Agreement:
    if empty := _without_numbers(model):
        raise ArtifactError(f"{empty} has no numbers after the folder was read {name}.")
    apart = (last_logits(model, made.ids, made.start) - made.logits).abs().amax(dim=-1)
    apart = torch.where(apart.isfinite(), apart, torch.full_like(apart, torch.finfo(torch.float32).max))
    worst = int((apart / made.allowed.clamp_min(torch.finfo(torch.float32).tiny)).argmax())
    return Agreement(name, float(apart[worst]), float(made.allowed[worst]))


def _without_numbers(model: nn.Module) -> str | None:
    """The first tensor of a model that is still on the meta device, be it a plain attribute."""
    for path, module in model.named_modules():
        held = {**module._parameters, **module._buffers, **vars(module)}
        for name, value in held.items():
            if isinstance(value, Tensor) and value.is_meta:
                return f"{path}.{name}"
    return None


def main() -> int:
    """Print what came of it as JSON, or say in a line why nothing did. Returns the exit code."""
    try:
        rows = compare(Path(sys.argv[1]), Path(sys.argv[2]))
    except PruneError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps([asdict(row) for row in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
