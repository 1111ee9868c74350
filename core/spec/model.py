"""Which model, where, and in which precision."""

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
    device: str = option(
        "auto",
        "cpu, cuda, cuda:1, mps, or auto: the best that the machine has.",
        title="Device",
        examples=("auto", "cpu", "cuda:0", "cuda:1"),
    )
    dtype: str = option("auto", "Precision of the weights; auto: by the device.", choices=DTYPES)
    trust_remote_code: bool = option(False, "Run code that comes with the model.")
    adapter: str = option(
        "", "An adapter (LoRA) to merge into the model first: its folder, or a hub id.", default_text="none"
    )
