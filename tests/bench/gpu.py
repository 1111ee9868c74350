"""What a card is made to do: ratios of one run on one CUDA device, on a Llama of random weights.

`make gpu` runs it; `python -m tests.bench gpu` alone does, too. Sizes follow the card: 7B where 60 GiB are
free, else 1B. Without CUDA there are no figures.
"""

from __future__ import annotations

import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.busy import Busy
from tests.bench.figure import Figure

_GIB, _REPEATS, _PROMPT = 2**30, 3, 512


def run() -> Iterator[Figure]:
    """Every figure as soon as it is measured, each with the card's share of busy time."""
    import torch

    if not torch.cuda.is_available():
        print("| no CUDA device here: nothing was measured | | | | |", flush=True)
        return
    made = _Made()
    yield from _captures(made)
    yield from _distances(made)
    yield from _training(made)
    yield from _end_to_end(made)


class _Made:
    """A Llama on the card, its graph, and tokens to read."""

    def __init__(self) -> None:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from core.graph.discover import discover

        large = torch.cuda.mem_get_info()[0] > 60 * _GIB
        self.layers, self.heads, hidden, inner = (32, 32, 4096, 11008) if large else (16, 16, 2048, 5504)
        config = LlamaConfig(
            hidden_size=hidden, intermediate_size=inner, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, num_key_value_heads=self.heads, max_position_embeddings=4096,
        )  # fmt: skip
        torch.manual_seed(0)
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("cuda"):
            self.model = LlamaForCausalLM(config).eval()
        torch.set_default_dtype(torch.float32)
        self.graph = discover(self.model, name="random-llama")
        self.ids = torch.randint(3, config.vocab_size, (64, _PROMPT))
        self.params = sum(value.numel() for value in self.model.parameters())
        self.weights = sum(value.nbytes for value in self.model.parameters())

    @property
    def name(self) -> str:
        return f"{self.params / 1e9:.1f}B, bf16"


def _measured(work: Callable[[], object]) -> tuple[float, float, float]:
    """Median seconds, busy share of the card and peak GiB of a piece of work, after a first go."""
    import torch

    def once() -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - began

    once()
    torch.cuda.reset_peak_memory_stats()
    with Busy() as busy:
        seconds = statistics.median(once() for _ in range(_REPEATS))
    return seconds, busy.share, torch.cuda.max_memory_allocated() / _GIB


def _ratio(name: str, ours: tuple[float, float, float], bare: float, goal: float, of: str) -> Figure:
    seconds, busy, peak = ours
    parts = f"{seconds:.2f} s / {bare:.2f} s, busy {busy:.0%}, peak {peak:.1f} GiB; {of}"
    return Figure(name, seconds / bare, "at most", goal, "x", parts)


def _captures(made: _Made) -> Iterator[Figure]:
    import torch

    from core.capture.names import GRADIENTS
    from core.capture.statistics import STATISTICS, capture

    model, graph = made.model, made.graph
    ten, sixteen = made.ids[:10, :128], made.ids[:16, :256]

    def forward() -> None:
        with torch.no_grad():
            for batch in sixteen.split(4):
                model(input_ids=batch.cuda(), use_cache=False)

    def backward() -> None:
        hooks = []
        for name, value in model.named_parameters():
            value.requires_grad_(".layers." in name and value.dim() > 1)
            if value.requires_grad:
                hooks.append(value.register_post_accumulate_grad_hook(_free))
        ids = ten.cuda()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        for hook in hooks:
            hook.remove()

    bare = _measured(backward)[0]
    ours = _measured(lambda: capture(model, graph, ten, needs={"gradient_first"}))
    yield _ratio("GPU: Eq. 5 / bare forward + backward", ours, bare, 1.3, f"10 x 128, {made.name}")
    peak = ours[2] - made.weights / _GIB
    parts = f"{ours[2]:.1f} GiB, of which {made.weights / _GIB:.1f} are weights; 10 x 128, {made.name}"
    yield Figure("GPU: taylor_first, peak beyond the weights", peak, "at most", 4, "GiB", parts)
    yield _busy("GPU: busy during Eq. 5", ours)
    model.requires_grad_(False)
    ahead = set(STATISTICS) - GRADIENTS
    bare = _measured(forward)[0]
    ours = _measured(lambda: capture(model, graph, sixteen, needs=ahead))
    name = "GPU: all forward-only statistics / bare forward"
    yield _ratio(name, ours, bare, 1.3, f"16 x 256, {made.name}")
    yield _busy("GPU: busy during forward-only statistics", ours)


def _free(parameter: Any) -> None:
    parameter.grad = None


def _busy(name: str, ours: tuple[float, float, float]) -> Figure:
    return Figure(name, 100 * ours[1], "at least", 70, "%", "share of samples at which a kernel was running")


def _distances(made: _Made) -> Iterator[Figure]:
    import torch

    from core.capture.divergence import attending_plainly, similarity

    windows = made.ids[:16]

    def forward() -> None:
        with attending_plainly(made.model), torch.inference_mode():
            for batch in windows.split(4):
                made.model.base_model(input_ids=batch.cuda(), use_cache=False)

    bare = _measured(forward)[0]
    ours = _measured(lambda: similarity(made.model, made.graph, windows, text="random"))
    of = f"16 x 512, {made.layers} layers x {made.heads} heads, {made.name}"
    yield _ratio("GPU: head distances / eager forward", ours, bare, 1.5, of)


def _training(made: _Made) -> Iterator[Figure]:
    rate = _flops()
    tokens, seconds = 16 * _PROMPT, dict[str, float]()
    for way, changes in (
        ("supervised", {"distillation": "none"}),
        ("taught", {"distillation": "dense"}),
        ("small", {"distillation": "dense", "gradient_checkpointing": "on", "accumulate": 4}),
    ):
        with _trainer(made, **changes) as trainer:
            measured = _measured(trainer.step)
        seconds[way] = measured[0]
        if way == "taught":
            name = "GPU: NutePrune step / supervised step"
            yield _ratio(name, measured, seconds["supervised"], 1.35, f"16 x 512, {made.name}")
            # The teacher's forward, the student's, and the way back to what LoRA and masks read: 2 each.
            bare = 6 * made.params * tokens / rate
            parts = f"{bare:.2f} s at {rate / 1e12:.0f} TFLOP/s of a large product / {measured[0]:.2f} s"
            yield Figure(
                "GPU: NutePrune step, of the bare FLOPs", bare / measured[0], "at least", 0.4, "x", parts
            )
            yield _busy("GPU: busy during NutePrune", measured)
        if way == "small":
            parts = f"gradient_checkpointing=on, accumulate=4, {measured[0]:.2f} s a step, {made.name}"
            yield Figure("GPU: NutePrune 16 x 512, peak", measured[2], "at most", 28, "GiB", parts)
            yield Figure("GPU: the same, on a card of 24 GiB", measured[2], "at most", 24, "GiB", parts)


def _flops() -> float:
    """Floating-point operations a second of one large product in bf16."""
    import torch

    size = 8192
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    return 2 * size**3 / _measured(lambda: [a @ a for _ in range(10)])[0] * 10


@contextmanager
def _trainer(made: _Made, **changes: Any) -> Iterator[Any]:
    """The model under NutePrune's training; afterwards it is as it was."""
    import torch

    from core.nuteprune.gates import Gates
    from core.nuteprune.training import MaskTraining
    from core.nuteprune.twin import Twin
    from core.plan.allocation import groups_in_scope
    from core.recover.team import Team, accelerator
    from core.spec.nuteprune import Settings
    from tests.nuteprune.small import Trainer

    kinds = ("query_head", "ffn_channel")
    settings = Settings(steps=1000, batch=16, **changes)
    groups = groups_in_scope(made.graph, kinds)
    gates = Gates(groups, settings.start)
    torch.manual_seed(0)
    twin = Twin(
        made.model, made.graph, gates.to(torch.device("cuda")),
        rank=settings.lora_rank, alpha=settings.lora_alpha, targets=settings.lora_targets,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        training = MaskTraining(
            twin, gates, made.graph, groups, made.ids, settings,
            allocation={"sparsity": 0.2, "kinds": kinds}, seed=0, folder=Path(folder),
        )  # fmt: skip
        team = Team(accelerator(made.model.device, settings.precision))
        yield Trainer(training, team, Path(folder) / "training.safetensors")
    twin.release()


def _end_to_end(made: _Made) -> Iterator[Figure]:
    """`prune` from the command line on the same model, beyond reading and writing its weights."""
    import torch

    from tests.conftest import WORDS, word_tokenizer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made.model.save_pretrained(folder / "model")
        word_tokenizer().save_pretrained(folder / "model")
        (folder / "text.txt").write_text(" ".join(random.Random(0).choices(WORDS.split(), k=40_000)))
        made.model.to("cpu")
        torch.cuda.empty_cache()
        text = str(folder / "text.txt")
        asked = ["prune", str(folder / "model"), "--runs-dir", str(folder / "runs"), "--device", "cuda"]
        asked += [
            "--method",
            "taylor_first",
            "--sparsity",
            "0.2",
            "--scope",
            "local",
            "--reconstruct",
            "none",
        ]
        asked += ["--calibration", text, "--samples", "10", "--length", "128", "--ppl", text]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "core", *asked], check=True, stdout=subprocess.DEVNULL)
        whole = time.perf_counter() - began
        (log,) = (folder / "runs").glob("*/log.txt")
        took = re.findall(r"(\w+) took ([\d.]+) s, ([\d.]+) GiB", log.read_text())
    stages = {stage: float(seconds) for stage, seconds, _ in took}
    moved = stages["load"] + stages["export"]
    parts = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in stages.items())
    parts += f", process and imports {whole - sum(stages.values()):.1f} s; {made.name}"
    yield Figure("GPU: prune beyond reading and writing", whole - moved, "at most", 20, "s", parts)
    peak = max(float(gib) for *_, gib in took)
    yield Figure(
        "GPU: prune, peak of all stages / weights", peak * _GIB / made.weights, "at most", 2, "x", parts
    )
