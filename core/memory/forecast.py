"""The most that a run will hold, stage by stage, and whether there is so much: told before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from core.capture.names import GRADIENTS, PER_SAMPLE
from core.criteria import CRITERIA
from core.memory.shapes import Shapes
from core.memory.training import Taken, Way, freed_bytes, needed_bytes, of_masks, of_recipe
from core.memory.working import Working
from core.methods import criteria_of, method_of, processes_of
from core.results.sweep import planned
from core.spec.choices import SEARCHED
from core.spec.evaluate import PROTOCOLS
from core.spec.run import RunSpec
from core.spec.units import MANUAL

GIB = 2**30
#: What a process holds beside a model: libraries, and what it has freed and not given back. On a card, where
#: tensors are counted alone, nothing; what CUDA itself takes there has to be free besides.
PROCESS, CONTEXT = int(0.7 * GIB), int(0.5 * GIB)
_SHORTER = "fewer tokens in each window (--length)"
_FEWER_AT_ONCE = "fewer windows at once (--calibration-batch 1)"
_NO_GRADIENT = "or a criterion that reads no gradient (--method ifv)"


@dataclass(frozen=True)
class Place:
    """Where a run computes.

    Attributes:
        device: `cpu`, `cuda:0`, `mps`, or `a GPU of …`.
        free: bytes that this run may take there; None where nobody here knows, as on a node of a cluster.
    """

    device: str
    free: int | None

    @property
    def cuda(self) -> bool:
        """Whether it is a card with memory of its own."""
        return self.device.startswith(("cuda", "a GPU"))


@dataclass(frozen=True)
class Part:
    """A stage: what it holds beside the weights and the process, in bytes.

    Attributes:
        does: what it does, a verb first.
        smaller: the setting that makes it smaller; empty for one of the whole run.
    """

    stage: str
    does: str
    size: int
    smaller: str = ""


@dataclass(frozen=True)
class Forecast:
    """What a run will hold at most.

    Attributes:
        weights, process: bytes that it holds all the time.
        parts: its stages.
    """

    place: Place
    weights: int
    process: int
    parts: tuple[Part, ...]
    half: bool

    @property
    def largest(self) -> Part:
        """The stage that holds most."""
        return max(self.parts, key=lambda part: part.size)

    @property
    def total(self) -> int:
        """The most in all, in bytes: of the process, or of its tensors on a card."""
        return self.process + self.weights + self.largest.size

    @property
    def gib(self) -> float:
        """The same in GiB."""
        return self.total / GIB

    @property
    def fits(self) -> bool:
        """Whether so much is free, as far as that is known."""
        beside = CONTEXT if self.place.cuda else 0
        return self.place.free is None or self.total + beside <= self.place.free

    @property
    def words(self) -> str:
        """`needs about 17 GiB of memory on cuda:0, 24 GiB free; most while it …`."""
        where = "" if self.place.device == "cpu" else f" on {self.place.device}"
        free = self.place.free
        known = "what is free there is not known here" if free is None else f"{gib(free)} free"
        return f"needs about {gib(self.total)} of memory{where}, {known}; most while it {self.largest.does}"

    @property
    def advice(self) -> str:
        """What to make smaller where it does not fit; empty where it does."""
        if self.fits:
            return ""
        smaller = self.largest.smaller
        if not smaller or self.process + self.weights > (self.place.free or 0):
            smaller = "a smaller model or another device" if self.half else "--dtype bfloat16"
            smaller += ", or let weights rest elsewhere (--device-map auto)" if self.place.cuda else ""
        return f"That will not fit: take {smaller}."


def gib(size: float) -> str:
    """Bytes as `17 GiB`, `1.3 GiB`."""
    value = size / GIB
    return f"{value:.0f} GiB" if value >= 10 else f"{value:.1f} GiB"


def forecast(spec: RunSpec, shapes: Shapes, place: Place, *, bf16: bool = False) -> Forecast:
    """What a run will hold at most.

    Args:
        shapes: of the model that it starts from.
        bf16: whether matrices are multiplied in bfloat16 here where that is left open.
    """
    spec = spec.settled()
    half = {"auto": place.cuda, "float32": False}.get(spec.model.dtype, True)
    itemsize, process = (2 if half else 4), (0 if place.cuda else PROCESS)
    weights = shapes.numbers * itemsize
    free = max(0, (10**15 if place.free is None else place.free) - process - weights)
    work = Working(shapes, itemsize, free, cuda=place.cuda)
    parts = tuple(_parts(spec, work, bf16))
    return Forecast(place, weights, process, parts, half)


def _parts(spec: RunSpec, work: Working, bf16: bool) -> Iterator[Part]:
    """The stages of a run that hold something, in order."""
    yield Part("load", "reads the weights", 0)
    if spec.goal == "explore":
        yield from _exploring(spec, work)
        return
    if spec.goal == "export":
        return
    measured = Part(
        "evaluate", "measures perplexity", _perplexity(spec, work),
        "shorter windows of perplexity (--window)",
    )  # fmt: skip
    yield measured
    if spec.goal == "evaluate":
        yield from _timed(spec, work, 0)
        return
    copy = _copy(spec, work)
    if spec.prunes:
        yield from _scoring(spec, work)
        yield from _cutting(spec, work, copy)
    if spec.goal == "prune" and (method := method_of(spec)):
        settings = method.settings(spec.prune.options)
        precision = _precision(settings.precision, bf16)
        every = of_masks(settings, spec.calibration.length, precision, processes_of(spec))
        yield Part("train", "learns what goes", _fitted(work, every), _SHORTER)
    if spec.goal in ("prune", "recover") and spec.recover.method != "none":
        every = of_recipe(spec.recover, _precision(spec.recover.precision, bf16), processes_of(spec))
        yield Part("recover", "trains what is left", copy + _fitted(work, every), _of_recovery(spec))
    if spec.goal != "sweep":
        yield Part(
            "after", "measures the result beside the dense model", copy + measured.size, measured.smaller
        )
        yield from _timed(spec, work, copy)


def _perplexity(spec: RunSpec, work: Working) -> int:
    asked = spec.evaluate
    tokens = asked.tokens or PROTOCOLS[asked.protocol].tokens
    return work.perplexity(asked.window_length, tokens, refers=spec.goal != "evaluate")


def _precision(asked: str, bf16: bool) -> str:
    return asked if asked != "auto" else "bf16" if bf16 else "no"


def _fitted(work: Working, every: Mapping[Way, Taken]) -> int:
    """What the first way takes that memory holds; the least where none does."""
    sizes = [
        needed_bytes(work.shapes, taken, work.itemsize) - freed_bytes(work.shapes, way.shards, work.itemsize)
        for way, taken in every.items()
    ]
    return next((size for size in sizes if size <= work.free), min(sizes))


def _of_recovery(spec: RunSpec) -> str:
    if spec.recover.distils and not spec.recover.top_k:
        return "what the teacher says from disk (--teacher-top-k 64)"
    return "shorter sequences (--recover-length)"


def _copy(spec: RunSpec, work: Working) -> int:
    """The dense model that stays to be timed beside the smaller one, where memory holds both and again."""
    keeps = spec.goal == "prune" and spec.evaluate.efficiency and not spec.prune.without_dependency
    roomy = not work.cuda and not spec.model.lent and work.free > 3 * work.weights
    twice = spec.goal == "prune" and spec.prune.without_dependency and spec.recover.method != "none"
    return work.weights if (keeps and roomy) or twice else 0


def _exploring(spec: RunSpec, work: Working) -> Iterator[Part]:
    asked, data = spec.explore, spec.calibration
    if "similarity" in asked.analyses:
        size = work.attention(data.length) + work.forward(4 * data.length)
        yield Part("similarity", "compares attention heads", size, _SHORTER)
    yield from _scoring(spec, work)
    if "sensitivity" in asked.analyses:
        size = work.layers_kept(asked.sensitivity_tokens)
        yield Part("sensitivity", "measures every layer", size, "fewer tokens of each point (--ratio-tokens)")


def _scoring(spec: RunSpec, work: Working) -> Iterator[Part]:
    """One pass over calibration text."""
    names = [name for name in criteria_of(spec) if name != MANUAL]
    needs = {statistic for name in names for statistic in CRITERIA[name].needs}
    if not needs:
        return
    data, method = spec.calibration, method_of(spec) if spec.goal == "prune" else None
    windows = max(spec.sweep.samples) if spec.goal == "sweep" else data.samples
    if method is not None:
        windows = min(windows, method.component.start_samples(spec.prune.options))
    kinds = spec.prune.kinds if spec.prunes else ("ffn_channel", "query_head", "kv_group")
    held = frozenset().union(*(work.shapes.units.get(kind, frozenset()) for kind in kinds))
    size = work.capture(needs, held, windows, data.length, data.batch)
    smaller = _SHORTER
    if GRADIENTS & needs:
        together = not PER_SAMPLE & needs and data.batch != 1
        smaller = _FEWER_AT_ONCE if together else f"{_SHORTER}, {_NO_GRADIENT}"
    yield Part("capture", "collects statistics on the calibration text", size, smaller)


def _cutting(spec: RunSpec, work: Working, copy: int) -> Iterator[Part]:
    asked, data = spec.prune, spec.calibration
    if (
        asked.scope == SEARCHED or SEARCHED in spec.sweep.scopes * (spec.goal == "sweep")
    ) and not asked.units:
        size = work.layers_kept(asked.search_tokens) + 4 * asked.search_tokens * work.shapes.vocabulary
        yield Part("search", "searches how much each group gives", size, "fewer tokens (--search-tokens)")
    ways = {asked.reconstruct} if spec.goal == "prune" else {each.reconstruct for each in planned(spec)}
    if ways - {"none", "bias"}:
        windows = max(data.samples, *spec.sweep.samples) if spec.goal == "sweep" else data.samples
        before = 0 if spec.goal == "prune" else work.weights  # what a point changes is put back after it
        smaller = "fewer windows (--samples)" if data.samples > 1 else _SHORTER
        yield Part(
            "reconstruct", "refits what stays", copy + before + work.refit(windows, data.length), smaller
        )
    if spec.goal == "prune":
        yield Part("surgery", "cuts the model", copy + work.cut(), "a smaller model")


def _timed(spec: RunSpec, work: Working, copy: int) -> Iterator[Part]:
    asked = spec.evaluate
    if asked.tasks:
        yield Part("benchmark", "scores benchmarks", copy + work.benchmarks(), "fewer benchmarks (--tasks)")
    if asked.int8:
        small = (work.weights + copy) // work.itemsize
        size = copy + small + _perplexity(spec, work)
        yield Part("int8", "measures copies in 8 bits", size, "no copies in 8 bits (--no-int8)")
