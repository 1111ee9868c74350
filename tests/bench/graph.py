"""How long discovering the groups takes, and how much memory, from a config alone."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.figure import Figure

LLAMA = dict(vocab_size=32000, max_position_embeddings=4096, tie_word_embeddings=False)
SIZES = {
    "Llama-7B": ({"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                  "num_attention_heads": 32, "num_key_value_heads": 32}, 20, 1),
    "70B": ({"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
             "num_attention_heads": 64, "num_key_value_heads": 8}, 60, 2),
}  # fmt: skip

DEMO = dict(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=9, tie_word_embeddings=True,
)  # fmt: skip


def run() -> list[Figure]:
    """Each size in a process of its own, for a peak memory of its own; imports are not counted as time."""
    figures = []
    for name, (sizes, seconds, gib) in SIZES.items():
        code = f"from tests.bench.graph import measure; measure({sizes!r})"
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        traced = json.loads(out.splitlines()[-1])
        parts = f"{traced['groups']} groups, no weights"
        figures.append(Figure(f"{name} config, groups", traced["seconds"], "at most", seconds, "s", parts))
        parts = f"of which {traced['gib_before']:.2f} GiB after the imports"
        figures.append(Figure(f"{name} config, peak memory", traced["gib"], "at most", gib, "GiB", parts))
    return [*figures, against_torch_pruning()]


def against_torch_pruning(repeats: int = 3) -> Figure:
    """Both on one model of the demo's size with a key-value head per query head, in turns; medians.

    Theirs is the graph and the list of its groups, which is what ours ends with.
    """
    import torch
    import torch_pruning as tp
    from transformers import LlamaConfig, LlamaForCausalLM

    from core.graph.discover import discover

    model = LlamaForCausalLM(LlamaConfig(**DEMO)).eval()
    norms = [(p, 0) for name, p in model.named_parameters() if "norm" in name]
    inputs = {"input_ids": torch.zeros(1, 7, dtype=torch.long), "use_cache": False}
    ours, theirs, built = [], [], []
    for _ in range(repeats):
        began = time.perf_counter()
        discover(model, name="bench")
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        graph = tp.DependencyGraph().build_dependency(model, inputs, unwrapped_parameters=list(norms))
        built.append(time.perf_counter() - began)
        list(graph.get_all_groups(root_module_types=[torch.nn.Linear]))
        theirs.append(time.perf_counter() - began)
    a, b = statistics.median(theirs), statistics.median(ours)
    parts = f"{a:.2f} s (of which {statistics.median(built):.2f} s to build it) / {b:.2f} s"
    return Figure("graph of the demo's size: Torch-Pruning / ours", a / b, "at least", 5, "x", parts)


def measure(sizes: dict[str, int]) -> None:
    """Print seconds and peak memory of one discovery as a JSON object."""
    from transformers import LlamaConfig

    from core.graph.discover import discover_config

    before = _peak_gib()
    began = time.perf_counter()
    graph = discover_config(LlamaConfig(**LLAMA, **sizes), name="bench")
    seconds = time.perf_counter() - began
    print(
        json.dumps(
            {"seconds": seconds, "gib": _peak_gib(), "gib_before": before, "groups": len(graph.groups)}
        )
    )


def _peak_gib() -> float:
    """Of this program alone: `ru_maxrss` would go on from the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 2**20
