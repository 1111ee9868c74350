"""Which model, and which text scores its units."""

from __future__ import annotations

from core.checked import checked
from core.option import option

DTYPES = ("auto", "float32", "bfloat16", "float16")


@checked
class ModelSpec:
    """Which model, where, and in which precision."""

    source: str = option(
        "demo",
        "'demo', a hub id, a folder, a .gguf file, or the folder of a run with a pruned model.",
        nonempty=True,
        called="model",
        flag="",
        wanted="a hub id, folder, .gguf file or 'demo'",
    )
    device: str = option("auto", "cpu, cuda, cuda:1, mps, or auto: the best that the machine has.")
    dtype: str = option("auto", "Precision of the weights; auto: by the device.", choices=DTYPES)
    trust_remote_code: bool = option(False, "Run code that comes with the model.")


@checked
class DataSpec:
    """Calibration text."""

    name: str = option(
        "bundled",
        "Text that scores units: bundled, a file, a hub data set (owner/name:config:split), self (the model "
        "writes it), or none.",
        title="Calibration text",
        called="calibration",
        flag="--calibration",
        metavar="NAME_OR_FILE",
    )
    samples: int = option(16, "Windows of calibration text.", title="Windows", ge=1, unit="windows")
    length: int = option(128, "Tokens in each window.", title="Tokens per window", ge=8, unit="tokens")
