"""What a step of distillation costs beside one of LoRA, and one in bfloat16 beside one in float32.

The demo model, 8 windows of 128 tokens a step.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench.figure import Figure

ROUNDS = 5
#: The way that is timed only where `auto` takes it.
ROUNDED = "lora in bfloat16"
ASKED = {"steps": 100, "batch": 8, "micro_batch": 8, "length": 128, "eval_every": 1000, "held": 8}


def run() -> list[Figure]:
    """Seconds of a step, each way by turns in one process, so that a busy moment hits all alike."""
    with tempfile.TemporaryDirectory() as folder:
        loops = _loops(Path(folder))
        for loop in loops.values():
            loop.step()  # which measures what is kept apart, too
        for _ in range(ROUNDS):
            for loop in loops.values():
                loop.step()
    seconds = {name: statistics.median(loop.seconds[1:]) for name, loop in loops.items()}
    figures = [
        _ratio(f"step, distillation {name} / LoRA", seconds[name], seconds["lora"], goal)
        for name, goal in (("from kept logits", 1.1), ("live", 1.6))
    ]
    if ROUNDED in seconds:  # 1: it is what is taken where nobody says, so it has to pay
        figures.append(_ratio("step, LoRA in bfloat16 / float32", seconds[ROUNDED], seconds["lora"], 1))
    return figures


def _ratio(name: str, value: float, other: float, goal: float) -> Figure:
    return Figure(name, value / other, "at most", goal, "x", f"{value:.2f} s / {other:.2f} s")


def _loops(folder: Path) -> dict[str, Any]:
    """The ways to train one model, each with a copy of its own."""
    import torch

    from core.devices.picked import multiplied_in
    from core.graph.discover import discover
    from core.models import load as models
    from core.recover.examples import Example, TrainingData
    from core.recover.logits import About, Kept
    from core.recover.loop import Loop
    from core.recover.teacher import FromDisk, Live, Teacher
    from core.recover.team import Team, accelerator
    from core.recover.train import Recovery
    from core.spec.recover import RecoverSpec

    dense = models.load("demo", device="cpu")
    graph = discover(dense.model, name=dense.name)
    ids = torch.randint(0, dense.config.vocab_size, (80, 128), generator=torch.Generator().manual_seed(0))
    examples = [Example(row, row) for row in ids.tolist()]
    kept = Kept(folder / "kept", About(dense.name, "", "random tokens", "", 64, 1.0))
    kept.add(dense.model, examples, 0, lambda done, total: None)
    teachers: dict[str, Teacher | None] = {
        "lora": None,
        "from kept logits": FromDisk(kept, 1.0),
        "live": Live(dense.model, 1.0),
    }
    if multiplied_in("auto", dense.device) == "bf16":
        teachers[ROUNDED] = None
    loops = {}
    for name, teacher in teachers.items():
        asked = RecoverSpec("lora" if teacher is None else "distill", **ASKED)
        student = replace(dense, model=copy.deepcopy(dense.model))
        data = TrainingData(examples[:72], examples[72:], "none")
        training = Recovery(
            student, graph, data, asked, seed=0, on_curve=lambda *point: None, teacher=teacher
        )
        loops[name] = Loop(
            training, Team(accelerator(dense.device, "bf16" if name == ROUNDED else "no")), folder / name
        )
    return loops
