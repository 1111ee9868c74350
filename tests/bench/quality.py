"""How good every way to train is, at equal tokens and at equal time: `make bench ARGS=quality`.

Small unless told otherwise: `make bench ARGS="quality seeds=0,1,2 sparsities=0.2,0.5 tokens=76800 minutes=20
train=FILE measure=FILE,factbook"`. Every point is a run in `folder`. What is there is not made again and what
was interrupted goes on, so that it can take days; table and figure are written anew after each run.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench.figure import Figure
from tests.bench.quality_table import Result, page, result_of, rows, seconds_of, table

#: Recovery's loss in the place of `method`, and how masks are trained; `cut` is not trained.
RECOVERS = {
    "lora": {"method": "lora"},
    "distill": {"method": "distill"},
    "distill+lora": {"method": "distill", "next_token": 0.5},
}
#: Ways to learn masks, and what each changes of the preset: numerous teachers, the dense model, or nobody.
LEARNS: dict[str, dict[str, Any]] = {
    "nuteprune": {"distillation": "progressive"},
    "nuteprune-dense": {"distillation": "dense"},
    "nuteprune-alone": {"distillation": "none"},
    "nuteprune+distill": {},
}
METHODS = ("cut", *RECOVERS, *LEARNS)
POINTS = "points.json"


@dataclass(frozen=True)
class Asked:
    """What to measure.

    Attributes:
        train: what calibrates and trains; measure: what perplexity is measured on, the first in the figure.
        tokens: that every training reads; minutes: that every training takes, another row; 0 for none.
        window, read: of each text that is measured, tokens of a window and in all.
    """

    model: str = "demo"
    methods: tuple[str, ...] = ("cut", "lora", "distill")
    seeds: tuple[int, ...] = (0, 1)
    sparsities: tuple[float, ...] = (0.2,)
    train: str = "bundled"
    measure: tuple[str, ...] = ("factbook",)
    tokens: int = 5120
    minutes: float = 0.0
    length: int = 128
    batch: int = 8
    window: int = 256
    read: int = 2048
    folder: str = "bench-quality"

    @classmethod
    def of(cls, given: dict[str, str]) -> Asked:
        """From `name=value`, several values with commas. Raises SystemExit where one is not understood."""
        changes: dict[str, Any] = {}
        for name, text in given.items():
            usual = getattr(cls(), name, None)
            if name not in {field.name for field in dataclasses.fields(cls)}:
                raise SystemExit(f"quality has no option {name}; it has {', '.join(vars(cls()))}.")
            try:
                several = isinstance(usual, tuple)
                kind = type(usual[0]) if isinstance(usual, tuple) else type(usual)
                values = tuple(kind(part) for part in (text.split(",") if several else [text]))
            except ValueError:
                raise SystemExit(f"{name} must be like {usual}, got {text!r}.") from None
            changes[name] = values if several else values[0]
        asked = cls(**changes)
        if strange := [method for method in asked.methods if method not in METHODS]:
            raise SystemExit(f"methods are {', '.join(METHODS)}, got {', '.join(strange)}.")
        return asked


@dataclass(frozen=True)
class Point:
    """One run: `budget` is what is equal, `tokens` or `minutes`."""

    method: str
    sparsity: float
    seed: int
    budget: str

    @property
    def key(self) -> str:
        """What `points.json` calls it."""
        return f"{self.method} {self.sparsity:g} {self.seed} {self.budget}"


def points(asked: Asked) -> list[Point]:
    """All of them, equal tokens first: how long those take says how many steps fit into the minutes."""
    equal = ("tokens", *(("minutes",) if asked.minutes else ()))
    return [
        Point(method, sparsity, seed, budget)
        for budget in equal
        for seed in asked.seeds
        for sparsity in asked.sparsities
        for method in asked.methods
        if method != "cut" or budget == "tokens"
    ]


def run(**given: str) -> list[Figure]:
    """Make what is missing, and print the table. It has no goal."""
    asked = Asked.of(given)
    folder, results = Path(asked.folder), list[Result]()
    for point in points(asked):
        run_dir = made(asked, point, folder)
        results.append(result_of(run_dir, point.method, point.sparsity, point.budget))
        head, lines = rows(results)
        (folder / "quality.md").write_text(table(head, lines), encoding="utf-8")
        (folder / "quality.html").write_text(page(results), encoding="utf-8")
    print(f"\n{(folder / 'quality.md').read_text(encoding='utf-8')}\nThe figure: {folder / 'quality.html'}\n")
    return []


def made(asked: Asked, point: Point, folder: Path) -> Path:
    """The finished run of a point: the one that is there, that one gone on with, or a new one."""
    from core.runs import launch
    from core.runs.artifacts import STOP
    from core.runs.status import Status, read_status, write_status
    from core.stages.worker import execute

    path = folder / POINTS
    runs: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if point.key not in runs:
        run_dir = launch.create(
            folder, spec_of(asked, point, steps_of(asked, point, folder, runs)), mine=True
        )
        path.write_text(json.dumps({**runs, point.key: run_dir.name}, indent=2), encoding="utf-8")
    else:
        run_dir = folder / runs[point.key]
    if read_status(run_dir).state != "finished":
        (run_dir / STOP).unlink(missing_ok=True)
        write_status(run_dir, Status(created=1.0))
        execute(run_dir)
    return run_dir


def steps_of(asked: Asked, point: Point, folder: Path, runs: dict[str, str]) -> int:
    """Steps that read the tokens, or that take the minutes as the run at equal tokens took them."""
    steps = max(2, asked.tokens // (asked.batch * asked.length))
    if point.budget == "tokens":
        return steps
    spent = seconds_of(folder / runs[replace(point, budget="tokens").key])
    return max(2, round(asked.minutes * 60 * steps / max(spent, 1e-9)))


def spec_of(asked: Asked, point: Point, steps: int) -> Any:
    """The run of a point; of masks and what comes after each has half of the steps."""
    from core.spec.calibration import DataSpec
    from core.spec.evaluate import EvalSpec
    from core.spec.model import ModelSpec
    from core.spec.nuteprune_presets import PRESETS
    from core.spec.prune import PruneSpec
    from core.spec.recover import RecoverSpec
    from core.spec.run import RunSpec

    first, *others = asked.measure
    learns = point.method in LEARNS
    recovers = RECOVERS.get(point.method.removeprefix("nuteprune+"), {})
    each = steps // 2 if learns and recovers else steps
    recover = RecoverSpec(
        data=asked.train, learning_rate=1e-3, warmup=10, steps=each, batch=asked.batch,
        micro_batch=asked.batch, length=asked.length, eval_every=max(1, each // 4), held=16, **recovers,
    )  # fmt: skip
    prune = PruneSpec("ifv", point.sparsity, scope="al_am", reconstruct="bias")
    calibration = DataSpec(asked.train, samples=16, length=2 * asked.length)
    if learns:
        gap = min(0.1, point.sparsity / 2)
        own = {**PRESETS["demo"]["prune.options"], "steps": each, "batch": asked.batch, "gap": gap}
        own |= LEARNS[point.method]
        own |= {"interval": min(0.01, gap / 2), "measure_every": max(1, each // 4)}
        prune = PruneSpec("nuteprune", point.sparsity, options=own)
        calibration = DataSpec(asked.train, samples=min(600, each * asked.batch), length=asked.length)
    return RunSpec(
        seed=point.seed, model=ModelSpec(asked.model), calibration=calibration, prune=prune,
        recover=recover, evaluate=EvalSpec(
            first, asked.window, asked.read, (), efficiency=False, also=tuple(others), watch=0
        ),
    )  # fmt: skip
