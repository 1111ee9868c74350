"""A sweep: the points it measures, their results, and the best of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from core.files import read_record, write_json
from core.results.noise import Difference, kept_difference
from core.results.perplexity import PPL_ON
from core.spec.evaluate import WORKBENCH
from core.spec.past import FORMAT, today
from core.spec.recommended import Recipe
from core.spec.run import RunSpec

SWEEP = "sweep.json"
#: Plans land within a unit of their target: so much of the dense model apart, they are of one size.
ALIKE = 0.002
#: What tells two points of a sweep apart.
AXES = ("method", "target", "scope", "reconstruct", "seed", "samples", "drop")


@dataclass(frozen=True)
class Other:
    """A perplexity on a text after the first: what is of a text in `Point`, under the same names."""

    ppl: float
    ppl_stderr: float | None = None
    change_stderr: float | None = None
    kl: float | None = None
    kl_stderr: float | None = None


@dataclass(frozen=True)
class OtherText:
    """A text after the first, and the dense model's perplexity on it; see `Sweep`."""

    text: str
    sha256: str
    window: PositiveInt
    tokens: int
    protocol: str
    ppl: float
    ppl_stderr: float | None = None


@dataclass(frozen=True)
class Point:
    """One way to prune, and its result.

    Attributes:
        target: the requested sparsity; sparsity, sparsity_total: what the plan removes, of the parameters in
            scope and of all.
        params, macs: what is left; ppl: None where it could not be measured.
        ppl_stderr: the standard error of `ppl`; change_stderr: of its change from the dense model, in nats,
            computed window by window. None where unknown.
        kl: divergence from the dense model in nats, kl_stderr: its standard error; None where unknown.
        error: why there is no plan or number, e.g. a target out of reach; else empty.
        seconds: for planning and measuring; scoring is shared between points.
        others: the perplexities on `Sweep.others`, in that order; empty where `ppl` is None.
        drop: whole blocks that went first, as in `core.spec.depth`; empty if none.
    """

    method: str
    target: float
    scope: str
    reconstruct: str
    seed: int
    samples: int
    sparsity: float | None = None
    sparsity_total: float | None = None
    params: int | None = None
    macs: int | None = None
    ppl: float | None = None
    seconds: float = 0.0
    error: str = ""
    ppl_stderr: float | None = None
    change_stderr: float | None = None
    others: tuple[Other, ...] = ()
    kl: float | None = None
    kl_stderr: float | None = None
    drop: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """Its place on every axis."""
        return tuple(getattr(self, axis) for axis in AXES)


@dataclass(frozen=True)
class Sweep:
    """`sweep.json`: rewritten after every point.

    Attributes:
        ppl, params, macs: of the dense model; text, window, tokens, protocol: how perplexity was
            measured.
        calibration: the text that scored units; planned: how many points there will be.
        ppl_stderr: the standard error of `ppl`, None where unknown.
        format: in which words the points are told, see `core.spec.past`; release 0.1 does not say it.
        sha256: of the text; others: the texts after the first.
    """

    ppl: float
    params: int
    macs: int
    text: str
    window: PositiveInt
    tokens: int
    calibration: str
    planned: int
    points: tuple[Point, ...] = field(default_factory=tuple)
    ppl_stderr: float | None = None
    format: int = 1
    protocol: str = WORKBENCH
    sha256: str = ""
    others: tuple[OtherText, ...] = ()

    @property
    def texts(self) -> tuple[OtherText, ...]:
        """Every text, the first one first."""
        return (
            OtherText(**{part.name: getattr(self, part.name) for part in fields(OtherText)}),
            *self.others,
        )

    def measured_on(self) -> dict[str, Any]:
        """What the perplexities are of, as `core.results.perplexity.by_text` names it."""
        return {name: getattr(self, name.removeprefix("ppl_")) for name in PPL_ON}

    def on(self, number: int) -> Sweep:
        """The sweep with the perplexities of one of its `texts` in the place of the first."""
        if number == 0:
            return self
        points = tuple(
            replace(point, **asdict(point.others[number - 1])) if point.others else replace(point, ppl=None)
            for point in self.points
        )
        return replace(self, points=points, **asdict(self.others[number - 1]))

    @property
    def windows(self) -> int:
        """How many windows every perplexity was measured on."""
        return self.tokens // self.window

    def change(self, point: Point) -> Difference:
        """How the point's perplexity differs from the dense model's."""
        return kept_difference(self.ppl, point.ppl, point.change_stderr, self.windows)

    @property
    def done(self) -> dict[tuple[Any, ...], Point]:
        """Finished points by their place on the axes."""
        return {point.key: point for point in self.points}

    def front(self) -> list[Point]:
        """The Pareto front: points that no other one beats in both size and perplexity, largest first."""
        return pareto(self.points, ALIKE * self.params)


def pareto(points: Sequence[Point], alike: float = 0.0) -> list[Point]:
    """Points that are smaller than each one with a lower perplexity.

    Args:
        alike: two with no more parameters between them are of one size.
    """
    measured = [point for point in points if point.ppl is not None and point.params is not None]
    front: list[Point] = []
    for point in sorted(measured, key=lambda point: (point.ppl or 0.0, point.params or 0)):
        if all((point.params or 0) < (better.params or 0) - alike for better in front):
            front.append(point)
    return sorted(front, key=lambda point: point.params or 0, reverse=True)


def planned(spec: RunSpec) -> list[Point]:
    """Every combination of the axes, each once; points that share a capture pass follow one another.

    What is recommended for a method stands in its points by name.
    """
    sweep, recipes = spec.sweep, spec.sweep.recipes(lent=spec.model.lent)
    axes = (sweep.seeds, sweep.samples, recipes, sweep.drops, sweep.sparsities)
    points = [
        _point(recipe, target, seed, samples, drop)
        for seed, samples, recipe, drop, target in itertools.product(*axes)
    ]
    return list({point.key: point for point in points}.values())


def _point(recipe: Recipe, target: float, seed: int, samples: int, drop: str) -> Point:
    return Point(recipe.method, target, recipe.scope, recipe.refit, seed, samples, drop=drop)


def run_of(spec: RunSpec, point: Point) -> RunSpec:
    """The pruning run that this point of a sweep stands for."""
    return replace(
        spec,
        goal="prune",
        name="",
        seed=point.seed,
        calibration=replace(spec.calibration, samples=point.samples),
        prune=replace(
            spec.prune,
            method=point.method,
            sparsity=point.target,
            scope=point.scope,
            reconstruct=point.reconstruct,
            drop=point.drop,
        ),
        extra={},
    )


def write_sweep(run_dir: Path, sweep: Sweep) -> None:
    """Write `sweep.json`. Raises StorageError."""
    write_json(run_dir / SWEEP, asdict(replace(sweep, format=FORMAT)))


def read_sweep(run_dir: Path) -> Sweep:
    """Read `sweep.json`, in today's words. Raises ArtifactError."""
    sweep = read_record(run_dir / SWEEP, Sweep, "run the sweep again")
    points = [
        replace(
            point,
            method=today("sweep.methods", point.method, sweep.format),
            reconstruct=today("sweep.reconstruct", point.reconstruct, sweep.format),
        )
        for point in sweep.points
    ]
    return replace(sweep, points=tuple(points), format=FORMAT)
