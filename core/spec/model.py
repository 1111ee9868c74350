"""Which model, where, and in which precision."""

from __future__ import annotations

import re
from typing import Any

from core.checked import checked
from core.errors import SpecError
from core.option import option
from core.spec.budget import BYTES

DTYPES = ("auto", "float32", "bfloat16", "float16")
DEVICE_MAPS = {
    "none": "All on the device",
    "auto": "As they fit: cards, memory, disk",
}
_HOLDS = re.compile(r"(cpu|mps|cuda(?::\d+)?)=(\d+(?:\.\d+)?)\s*([a-zA-Z]+)")


def memory_of(text: str) -> dict[str, int]:
    """Read `cuda:0=20GiB,cpu=100GiB`: device -> bytes. Raises SpecError."""
    most: dict[str, int] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        read = _HOLDS.fullmatch(part)
        if read is None or read[3].lower() not in BYTES:
            raise SpecError(
                f"max_memory must be devices with what they may hold, got {part!r}; write "
                "cuda:0=20GiB,cpu=100GiB, in GiB, MiB, GB or MB, devices being cuda:0, cuda:1, cpu or mps."
            )
        device = "cuda:0" if read[1] == "cuda" else read[1]
        if device in most:
            raise SpecError(f"max_memory names {device} twice in {text!r}; keep one.")
        most[device] = int(float(read[2]) * BYTES[read[3].lower()])
    return most


def check_memory(given: Any) -> Any:
    """Return `given` if it says what devices may hold, or is empty. Raises SpecError."""
    if isinstance(given, str):
        memory_of(given)
    return given


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
        place=True,
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
        "",
        "An adapter (LoRA) to merge into the model first: its folder, or a hub id.",
        default_text="none",
        place=True,
    )
    device_map: str = option(
        "none",
        "Where the weights of a model that is larger than the device rest while others are multiplied; auto: "
        "what does not fit there rests on other cards, in memory, then on disk, and is lent to it layer by "
        "layer. Takes no method that needs gradients.",
        title="Where weights rest",
        choices=DEVICE_MAPS,
    )
    max_memory: str = option(
        "",
        "What devices may hold of the weights, such as cuda:0=20GiB,cpu=100GiB; activations need room, too.",
        title="Weights on each device at most",
        check=check_memory,
        default_text="70 % of what is free on the device that computes, 90 % elsewhere",
        wanted="devices with what they may hold, such as cuda:0=20GiB,cpu=100GiB",
    )

    @property
    def lent(self) -> bool:
        """Whether weights may rest elsewhere than where they are computed with, and then get no gradients."""
        return self.device_map != "none"

    def __post_init__(self) -> None:
        if self.max_memory and self.device_map == "none":
            raise SpecError(
                f"max_memory {self.max_memory} counts for nothing without --device-map auto; add that, or "
                "leave it out."
            )
