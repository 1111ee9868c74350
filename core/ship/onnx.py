"""Two graphs for onnxruntime: one reads a prompt, the other goes on with the cache of what was read.

The exporter of transformers traces both. Batch and length stay free: the sample has two texts of several
tokens, since what is one while tracing is taken for one forever.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from pathlib import Path
from typing import Any

from core.errors import ModelError, SpecError
from core.ship.records import Parcel, Route, Subject, Verdict, Written
from core.spec.export import ExportSpec

#: What traces and checks; no part of the workbench's own requirements.
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
PREFILL, DECODE = "prefill", "decode"
_SAMPLE, _TRIAL = (2, 7), (3, 11)
#: Logits of onnxruntime and of torch may differ by this, relative to the largest.
_TOLERANCE = 1e-4


def verdict(subject: Subject) -> Verdict:
    """Any decoder is traced as it is; whether its operations exist in ONNX shows when it is."""
    return Verdict(True, "as it is traced, with layers as uneven as they are.")


def check_packages(options: ExportSpec) -> None:
    """Raises ModelError where what traces and checks is not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(
            f"ONNX needs {', '.join(missing)}, which is not installed; "
            "run `.venv/bin/pip install -r requirements-export.txt`."
        )


def write(parcel: Parcel) -> Written:
    """Write both graphs, and have onnxruntime compute with them what torch computes.

    Raises:
        ModelError: a package is missing. SpecError: the model cannot be traced, or computes something else.
    """
    check_packages(parcel.options)
    import torch

    from core.models import saved

    model, tokenizer, _ = saved.load(
        parcel.model, dtype=torch.float32, trust_remote_code=parcel.trust_remote_code
    )
    parcel.progress(0, 3, "steps")
    exported = _traced(model)
    parcel.progress(1, 3, "steps")
    exported.save_pretrained(parcel.out)
    if tokenizer is not None:
        tokenizer.save_pretrained(parcel.out)
    parcel.progress(2, 3, "steps")
    farthest = _compared(model, parcel)
    parcel.progress(3, 3, "steps")
    return Written(
        (
            f"Prefill and decode with its cache were computed by onnxruntime, too: {farthest:.1g} apart from "
            "torch, relative to the largest logit.",
            f"{PREFILL}.onnx reads a prompt, {DECODE}.onnx goes on with its cache; all texts of a batch are "
            "of one length.",
        ),
    )


def use(subject: Subject, folder: Path, options: ExportSpec) -> tuple[str, ...]:
    """A program that lets onnxruntime go on with a text."""
    return (
        "from transformers.exporters import ExportedModel",
        "",
        f"model = ExportedModel.from_pretrained({str(folder)!r})  # runs in onnxruntime",
    )


def _sample(model: Any, shape: tuple[int, int]) -> Any:
    """Token ids, the same every time, (batch, tokens)."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.config.get_text_config().vocab_size, shape, generator=generator)


def _traced(model: Any) -> Any:
    """Both graphs. Raises SpecError where an operation has no word in ONNX."""
    import torch
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    ids = _sample(model, _SAMPLE)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return OnnxExporter().export_for_generation(model, inputs, OnnxConfig(dynamic=True))
    except Exception as error:  # whatever tracing meets: it says so of any model
        cause = error.__cause__ or error
        first = next(iter(str(cause).splitlines()), type(cause).__name__)
        raise SpecError(
            f"ONNX cannot hold this model: {first[:200]} Write hf, or gguf where that is open."
        ) from error


def _compared(model: Any, parcel: Parcel) -> float:
    """How far onnxruntime is from torch in a prompt and the token after it, relative to the largest logit.

    Raises SpecError beyond `_TOLERANCE`.
    """
    import torch

    ids = _sample(model, _TRIAL)
    with torch.no_grad():
        first = model(ids[:, :-1], use_cache=True)
        second = model(ids[:, -1:], past_key_values=first.past_key_values)
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    sessions = {
        name: onnxruntime.InferenceSession(
            str(parcel.out / f"{name}.onnx"), options, ["CPUExecutionProvider"]
        )
        for name in (PREFILL, DECODE)
    }
    read = _run(sessions[PREFILL], ids[:, :-1], 0, {})
    told = _run(sessions[DECODE], ids[:, -1:], ids.shape[1] - 1, read)
    pairs = ((read["logits"], first.logits), (told["logits"], second.logits))
    farthest = max(
        float((torch.from_numpy(theirs)[:, -1] - ours[:, -1]).abs().max() / ours.abs().max())
        for theirs, ours in pairs
    )
    if not farthest <= _TOLERANCE:
        raise SpecError(
            f"onnxruntime computes something else than torch does: logits {farthest:.1g} apart, relative to "
            f"the largest, where {_TOLERANCE:g} is rounding. Nothing was written."
        )
    return farthest


def _run(session: Any, ids: Any, start: int, cache: dict[str, Any]) -> dict[str, Any]:
    """Outputs by name; what a graph takes as `input.X` another gives as `X`."""
    import numpy as np

    places = np.broadcast_to(np.arange(start, start + ids.shape[1]), tuple(ids.shape)).copy()
    length = start + ids.shape[1]
    known = {
        "input_ids": ids.numpy(),
        "position_ids": places,
        "cache_position": places[0],
        "attention_mask": np.ones((ids.shape[0], length), dtype=np.int64),
        **{f"input.{name}": value for name, value in cache.items()},
    }
    feed = {each.name: known[each.name] for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


ROUTE = Route("onnx", "onnxruntime", verdict, use, write, ready=check_packages)
