"""A saved folder read in a process of its own, as its user will read it, and compared with what was saved.

The process that saved a model knows its classes, its code and its buffers; another knows the folder alone. It
reads no hub, and asks nobody (`core.models.reading`). What is compared are logits on an input that goes
further than any length at which the config changes what is computed (the length that scaled rotary embeddings
were trained for, windows of attention), as far as a pass of that length is affordable; else a shorter input
stands at those positions.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils.hub import HF_MODULES_CACHE

from core.errors import ArtifactError
from core.graph.hooks import evaluating
from core.models.stored import brings_code
from core.results.agreement import Agreement
from core.surgery.rounding import let_loose

#: Products that a pass of the long input may cost: some seconds on two cores, and on a GPU.
_MOST_PRODUCTS = {"cpu": 2e11, "mps": 2e12, "cuda": 2e13}
_SHORT = 32
#: The last positions are compared: they see all that stands before them.
_COMPARED = 8
#: How many times what one rounding of all that its modules give does two readings may be apart.
_MARGIN = 8.0
#: Packages whose classes every process finds.
_AT_HOME = ("transformers", "transformers_modules")
_LENGTHS = ("original_max_position", "sliding_window", "attention_chunk_size", "window_size")


@dataclass(frozen=True)
class Probe:
    """An input, what the saved model makes of it, and how far rounding may take another from that.

    Attributes:
        ids: (1, tokens); start: the position of the first.
        logits: of the last tokens, (tokens, vocabulary), in float32; allowed: for each token, (tokens,).
        dtype: what computes, e.g. `float32`; device: where.
        trust_remote_code: the model brings code of its own.
        modules: of other packages, which have the classes of the model.
        stock: plain transformers has to read the folder, too.
        extent: which positions were tried, in words, and what was too far.
    """

    ids: Tensor
    start: int
    logits: Tensor
    allowed: Tensor
    dtype: str
    device: str
    trust_remote_code: bool
    modules: tuple[str, ...]
    stock: bool
    extent: str


def probe(model: PreTrainedModel, *, stock: bool) -> Probe:
    """What a model that is being saved computes. Its weights are those that are saved."""
    tokens, start = _reach(model)
    vocabulary = model.config.get_text_config().vocab_size
    ids = (torch.arange(tokens)[None] * 7919 + 11) % vocabulary
    first = last_logits(model, ids, start)
    unit = torch.finfo(model.dtype).eps / 2
    with let_loose(model, lambda _: unit):
        moved = last_logits(model, ids, start) - first
    smallest = torch.finfo(torch.float32).eps * first.abs().amax(dim=-1)
    classes = {type(model).__module__, type(model.config).__module__}
    foreign = [name for name in sorted(classes) if name.partition(".")[0] not in _AT_HOME]
    return Probe(
        ids,
        start,
        first,
        _MARGIN * (moved.square().mean(dim=-1).sqrt() * 4 + smallest),
        str(model.dtype).removeprefix("torch."),
        _device(model),
        brings_code(model),
        tuple(foreign),
        stock,
        _extent(tokens, start, longest(model.config)),
    )


def _extent(tokens: int, start: int, length: int) -> str:
    """Which positions an input has, and whether that is as far as it should go."""
    words = f"on positions {start:,} to {start + tokens - 1:,}"
    if start + tokens <= length:
        return f"{words}, and not beyond {length:,}, which would take too long here"
    return f"{words}, fewer tokens than a window has" if start else words


def _device(model: PreTrainedModel) -> str:
    """Where the other process reads: where the model is, if it fits there twice, else on the CPU."""
    if model.device.type != "cuda":
        return str(model.device)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    return str(model.device) if torch.cuda.mem_get_info(model.device)[0] > 1.3 * size else "cpu"


def _reach(model: PreTrainedModel) -> tuple[int, int]:
    """How many tokens the input has, and at which position it starts."""
    length = longest(model.config)
    products = sum(parameter.numel() for parameter in model.parameters())
    slower = torch.device(_device(model)).type  # of the processes that run it
    most = max(_SHORT, int(_MOST_PRODUCTS.get(slower, 2e11) / products))
    tokens = max(_SHORT, length + 1) if length < most else most
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(limit, int) and limit > 0 and length < limit:
        tokens = min(tokens, limit)
    moves = "position_ids" in inspect.signature(model.forward).parameters
    return tokens, max(0, length + 1 - tokens) if moves else 0


def longest(config: PretrainedConfig) -> int:
    """The longest length at which a config changes what is computed; 0 if none does."""
    text = config.get_text_config()
    values = list(_walk(text.to_dict()))
    lengths = [value for key, value in values if any(part in key for part in _LENGTHS)]
    scaled = any(key == "rope_type" and value not in ("default", "linear") for key, value in values)
    limit = getattr(text, "max_position_embeddings", None)
    known = [value for value in lengths if isinstance(value, int) and value > 0]
    if scaled and isinstance(limit, int) and not any("original" in key for key, value in values if value):
        return max([*known, limit])
    return (
        min(max(known, default=0), limit) if isinstance(limit, int) and limit > 0 else max(known, default=0)
    )


def _walk(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        yield str(key), value
        if isinstance(value, dict):
            yield from _walk(value)


def last_logits(model: PreTrainedModel, ids: Tensor, start: int) -> Tensor:
    """Of the last tokens, (tokens, vocabulary), in float32 on the CPU."""
    more: dict[str, Any] = {}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        more["logits_to_keep"] = _COMPARED
    if start:
        more["position_ids"] = torch.arange(start, start + ids.shape[1], device=model.device)[None]
    with torch.no_grad(), evaluating(model):
        out = model(input_ids=ids.to(model.device), use_cache=False, **more).logits
    last: Tensor = out[0, -_COMPARED:].float().cpu()
    return last


def read_back(folder: Path, made: Probe) -> list[Agreement]:
    """Read a folder in a new process, and compare.

    Returns:
        A row for each way to read it: by the workbench and, where it says so, by plain transformers.

    Raises:
        ArtifactError: it cannot be read there, or computes something else.
    """
    with tempfile.TemporaryDirectory() as beside:
        path = Path(beside) / "probe.safetensors"
        write_probe(made, path)
        done = _in_new_process(folder, path)
    agreements = [Agreement(**row) for row in done]
    wrong = next((row for row in agreements if not row.holds), None)
    if wrong is not None:
        raise ArtifactError(
            f"{folder} read {wrong.where} is not the model that was saved: off by {wrong.difference:.3g}, "
            f"where rounding explains {wrong.allowed:.3g}."
        )
    return agreements


def write_probe(made: Probe, path: Path) -> None:
    """Write a probe for the other process."""
    facts = {key: value for key, value in vars(made).items() if not isinstance(value, Tensor)}
    tensors = {key: value for key, value in vars(made).items() if isinstance(value, Tensor)}
    save_file(tensors, path, metadata={"facts": json.dumps(facts)})


def _in_new_process(folder: Path, path: Path) -> list[dict[str, Any]]:
    """What `core.models.reading` prints. Raises ArtifactError with the last words of a process that fails."""
    paths = [entry or os.getcwd() for entry in sys.path if entry != HF_MODULES_CACHE]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    environment["HF_MODULES_CACHE"] = str(path.parent)  # code of the folder leaves no copy behind
    done = subprocess.run(
        [sys.executable, "-m", "core.models.reading", str(folder), str(path)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise ArtifactError(f"{folder} cannot be read in a process of its own: {said[-1]}")
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows
