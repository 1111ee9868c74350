"""Two graphs for onnxruntime: one reads a prompt, the other goes on with the cache of what was read.

The exporter of transformers traces both. Batch and length stay free: the sample has two texts of several
tokens, since what is one while tracing is taken for one forever.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import warnings
from pathlib import Path
from typing import Any

from core.errors import ModelError, SpecError
from core.ship.onnx_step import step
from core.ship.records import Parcel, Route, Subject, Verdict, Written
from core.spec.export import ExportSpec

#: What traces and checks; no part of the workbench's own requirements.
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
PREFILL, DECODE = "prefill", "decode"
_SAMPLE, _TRIAL = (2, 7), (3, 11)
#: What follows in the program to copy, without a tokenizer and with one.
_LOOP = (
    "out, tokens = step(graphs[0], ids, 0, {}), []",
    "for place in range(ids.shape[1], ids.shape[1] + 24):",
    '    tokens.append(int(out["logits"][0, -1].argmax()))',
)
_STEP = "    out = step(graphs[1], np.array([tokens[-1:]]), place, out)"
_PROGRAM = {
    False: ("ids = np.array([[1, 2, 3]])", *_LOOP, _STEP, "print(tokens)"),
    True: (
        'ids = tokenizer("The capital of France is", return_tensors="np").input_ids',
        *_LOOP,
        "    if tokens[-1] == tokenizer.eos_token_id:",
        "        break",
        _STEP,
        "print(tokenizer.decode(tokens))",
    ),
}
#: Logits of onnxruntime and of torch may differ by this, relative to the largest.
_TOLERANCE = 1e-4


def verdict(subject: Subject) -> Verdict:
    """Any decoder is traced as it is; whether its operations exist in ONNX shows when it is."""
    return Verdict(True, "as it is traced, with layers as uneven as they are.")


def check_packages(*_: Any) -> None:
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
    check_packages()
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
    """A program that lets onnxruntime go on with a text, or with token ids where no tokenizer lies there."""
    worded = (folder / "tokenizer_config.json").is_file()
    return (
        "from typing import Any",
        "",
        "import numpy as np",
        "import onnxruntime",
        *(["from transformers import AutoTokenizer"] if worded else []),
        "",
        f"folder = {str(folder)!r}",
        *(["tokenizer = AutoTokenizer.from_pretrained(folder)"] if worded else []),
        f'names = [f"{{folder}}/{{name}}.onnx" for name in ("{PREFILL}", "{DECODE}")]',
        "graphs = [onnxruntime.InferenceSession(name) for name in names]",
        "",
        "",
        *inspect.getsource(step).splitlines(),
        "",
        "",
        *_PROGRAM[worded],
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
    """How far onnxruntime is from torch in a prompt and two tokens after it, relative to the largest logit.

    Raises SpecError beyond `_TOLERANCE`.
    """
    import torch

    ids, graphs = _sample(model, _TRIAL), _sessions(parcel.out)
    cache, read, start, farthest = None, dict[str, Any](), 0, 0.0
    for piece in ids.split([ids.shape[1] - 2, 1, 1], dim=1):
        with torch.no_grad():
            ours = model(piece, past_key_values=cache, use_cache=True)
        read = step(graphs[DECODE if start else PREFILL], piece.numpy(), start, read)
        cache, start = ours.past_key_values, start + piece.shape[1]
        apart = torch.from_numpy(read["logits"])[:, -1] - ours.logits[:, -1]
        farthest = max(farthest, float(apart.abs().max() / ours.logits.abs().max()))
    if not farthest <= _TOLERANCE:
        raise SpecError(
            f"onnxruntime computes something else than torch does: logits {farthest:.1g} apart, relative to "
            f"the largest, where {_TOLERANCE:g} is rounding. Nothing was written."
        )
    return farthest


def _sessions(folder: Path) -> dict[str, Any]:
    """Both graphs, ready to run on the CPU."""
    import torch

    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return {
        name: onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options, ["CPUExecutionProvider"])
        for name in (PREFILL, DECODE)
    }


ROUTE = Route("onnx", "onnxruntime", verdict, use, write, ready=check_packages)
