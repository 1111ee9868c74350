"""What teaching costs: memory and time of a training step of the demo model, with and without a teacher."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.figure import Figure
from tests.bench.graph import _peak_gib

if TYPE_CHECKING:
    from tests.nuteprune.small import Trainer

TEACHERS = 50
#: Steps of the demo preset, and what it takes of each kind at 20 % with an interval of 1 %.
STEPS, SNAPSHOTS, SWITCHES = 150, 19, 38


def run() -> list[Figure]:
    """Memory in a process of its own for each way; time in one process, by turns."""
    peaks = {way: _peak_of(way) for way in ("none", "progressive", "second_model")}
    ours = peaks["progressive"]
    figures = [
        _ratio("memory, progressive / supervised", ours, peaks["none"], 1.05, "GiB"),
        _ratio("memory, progressive / a second model", ours, peaks["second_model"], 0.75, "GiB"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        taught = trainer(Path(folder) / "taught", "progressive")
        alone = trainer(Path(folder) / "alone", "none")
        seconds = _by_turns({"taught": taught, "alone": alone})
        figures.append(
            _ratio("step, progressive / supervised", seconds["taught"], seconds["alone"], 1.5, "s")
        )
        figures += _teachers(taught, seconds["taught"])
    return figures


def _ratio(name: str, value: float, other: float, goal: float, unit: str) -> Figure:
    return Figure(name, value / other, "at most", goal, "x", f"{value:.2f} {unit} / {other:.2f} {unit}")


def _peak_of(way: str) -> float:
    code = f"from tests.bench.nuteprune import measure; measure({way!r})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return float(json.loads(out.splitlines()[-1]))


def measure(way: str) -> None:
    """Print the peak memory of four steps, the later ones with a snapshot as the teacher."""
    with tempfile.TemporaryDirectory() as folder:
        training = trainer(Path(folder), way)
        for _ in range(4):
            training.step()
    print(json.dumps(_peak_gib()))


def trainer(folder: Path, way: str) -> Trainer:
    """The demo model under training, one window of 128 tokens a step, in float32."""
    import copy

    from core.graph.discover import discover
    from core.models import load as models
    from core.models import texts
    from core.models.windows import sample_windows
    from core.nuteprune.gates import Gates
    from core.nuteprune.training import MaskTraining
    from core.nuteprune.twin import Twin
    from core.plan.allocation import groups_in_scope
    from core.recover.team import Team, accelerator
    from core.spec.nuteprune import Settings
    from tests.nuteprune.small import Trainer

    # So near the boundary, and with the whole target at once, a snapshot is taken after the first step and
    # teaches from the second on.
    near = {"start": 1.0, "warmup": 0.0, "gap": 0.0, "interval": 0.05}
    settings = Settings(**{**near, "batch": 1, "precision": "no", "distillation": way})
    loaded = models.load("demo", device="cpu")
    graph = discover(loaded.model, name="demo")
    windows = sample_windows(
        loaded.tokenizer, texts.calibration_text("bundled"), samples=8, length=128, seed=0
    )
    second = copy.deepcopy(loaded.model) if way == "second_model" else None
    groups = groups_in_scope(graph, ("query_head", "ffn_channel"))
    gates = Gates(groups, settings.start)
    twin = Twin(
        loaded.model, graph, gates,
        rank=settings.lora_rank, alpha=settings.lora_alpha, targets=settings.lora_targets,
    )  # fmt: skip
    training = MaskTraining(
        twin, gates, graph, groups, windows, settings,
        allocation={"sparsity": 0.2}, seed=0, folder=folder, second=second,
    )  # fmt: skip
    team = Team(accelerator(loaded.device, settings.precision))
    return Trainer(training, team, folder / "training.safetensors")


def _by_turns(trainers: dict[str, Trainer], times: int = 5) -> dict[str, float]:
    """Median seconds of a step; the first steps are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(times + 2):
        for name, training in trainers.items():
            began = time.perf_counter()
            report = training.step()
            if number >= 2:
                assert name == "alone" or report.teacher, "a snapshot should teach by now"
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _teachers(loop: Trainer, step: float) -> list[Figure]:
    """What snapshots and switches cost a step of the demo preset, and what 50 teachers take."""
    training = loop.training
    began = time.perf_counter()
    for level in range(1, TEACHERS + 1):
        training.bank.add(level, training.twin.snapshot(training.masks.snapshot(), level / 100))
    per_snapshot = (time.perf_counter() - began) / TEACHERS
    began = time.perf_counter()
    for level in range(1, TEACHERS + 1):
        training.twin.seat(training.bank[level])
    per_switch = (time.perf_counter() - began) / TEACHERS
    share = (SNAPSHOTS * per_snapshot + SWITCHES * per_switch) / STEPS / step * 100
    parts = (
        f"{per_snapshot * 1000:.0f} ms a snapshot, {per_switch * 1000:.0f} ms a switch, {step:.2f} s a step"
    )
    bank = training.bank
    tensors = [t for level in bank.levels for t in (bank[level].factors, *bank[level].updates.values())]
    gib = sum(tensor.nbytes for tensor in tensors) / 2**30
    return [
        Figure("snapshots and switches, of a step", share, "at most", 2, "%", parts),
        Figure(f"{TEACHERS} teachers of the demo model", gib, "at most", 1, "GiB", "on the CPU"),
    ]
