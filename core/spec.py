"""What a run is asked to do: frozen dataclasses, JSON in and out, checked on construction."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from core.checks import check_kind_sparsity, check_name, check_sparsity, check_tau, is_number, parse_layers
from core.checks import require as _require
from core.checks import require_whole as _require_whole
from core.errors import SpecError
from core.selection import MANUAL, checked_units, units_entries
from core.spec_recover import RecoverSpec
from core.spec_sweep import SweepSpec

Goal = Literal["explore", "prune", "recover", "evaluate", "sweep"]
Analysis = Literal["groups", "similarity", "scores", "sensitivity"]
ANALYSES: tuple[Analysis, ...] = ("groups", "similarity", "scores", "sensitivity")
SENSITIVITY_KINDS = ("attention", "ffn", "both", "head")
#: Unit kinds a plan may cut. `attention` kinds exclude each other: both own the same query heads.
KINDS = ("ffn_channel", "query_head", "kv_group", "residual_channel")
#: How a target is spread: evenly, by value per parameter, or by how a unit stands out in its group.
SCOPES = ("local", "global", "standardised", "raw")
#: What is done about the error that pruning makes, without training.
RECONSTRUCTIONS = ("none", "bias", "least_squares", "pre_pruning")
#: Those which put part of what they find into a bias, also where the dense model has none.
BIASED = ("bias", "least_squares", "pre_pruning")
#: LLM-Pruner's two ways (Section 3.1): blocks lose heads and channels of their own, or all lose the same
#: hidden channels.
STRATEGIES = {"block": ("query_head", "ffn_channel"), "channel": ("residual_channel",)}
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelSpec:
    """Which model, where, and in which precision.

    `source` is `demo`, a hub id, a folder, a `.gguf` file, or a run directory with a pruned model.
    """

    source: str = "demo"
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        _require(bool(self.source.strip()), "model", self.source, "a hub id, folder, .gguf file or 'demo'")
        _require(self.dtype in DTYPES, "dtype", self.dtype, f"one of {', '.join(DTYPES)}")


@dataclass(frozen=True)
class DataSpec:
    """Calibration text: `samples` windows of `length` tokens.

    `name` is `bundled`, a file, a hub data set, `self` (the model writes it) or `none`.
    """

    name: str = "bundled"
    samples: int = 16
    length: int = 128

    def __post_init__(self) -> None:
        _require_whole("samples", self.samples, 1)
        _require_whole("length", self.length, 8)


@dataclass(frozen=True)
class PruneSpec:
    """How much goes, of what, and by which method.

    Attributes:
        method: a registered method or criterion, e.g. `taylor_first`.
        sparsity: fraction of the parameters in the prunable groups in scope, in [0, 1).
        scope: how the target is spread; `local` = the same fraction of every group.
        kinds: the unit kinds in scope.
        layers: `first:last` as in a Python slice (last not included), a name of `LAYER_PRESETS`, or None
            for all layers.
        options: the method's own options.
        units: group id -> units that go, where they were chosen by hand. `method` is then `manual`, and
            sparsity, scope, kinds and layers follow from them.
        kind_sparsity: kind -> its own target; kinds without one take `sparsity`.
        multiple: widths of channels that lose some are whole multiples of it; heads are left as heads.
        reconstruct: how what stays is refitted without training, one of `RECONSTRUCTIONS`.
        without_dependency: an ablation: cut every matrix by its own scores, measure, save no model.
    """

    method: str = "taylor_first"
    sparsity: float = 0.2
    scope: str = "local"
    kinds: tuple[str, ...] = ("query_head", "ffn_channel")
    layers: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    units: dict[str, tuple[int, ...]] = field(default_factory=dict)
    kind_sparsity: dict[str, float] = field(default_factory=dict)
    multiple: int = 1
    reconstruct: str = "none"
    without_dependency: bool = False

    @property
    def biased(self) -> bool:
        """Whether what is cut gets biases."""
        return self.reconstruct in BIASED

    def allocation(self) -> dict[str, Any]:
        """What `core.allocation.allocate` is to do, by the names of its arguments."""
        names = ("sparsity", "scope", "kinds", "layers", "kind_sparsity", "multiple", "biased")
        return {name: getattr(self, name) for name in names}

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", checked_units(self.units))
        wanted = "a method that ranks units, or manual with the units that go"
        got = f"{self.method} with {' '.join(units_entries(self.units)) or 'no units'}"
        _require((self.method == MANUAL) == bool(self.units), "method", got, wanted)
        check_sparsity(self.sparsity)
        _require(isinstance(self.options, dict), "options", self.options, "an object: option -> value")
        check_name("scope", self.scope, SCOPES)
        check_name("reconstruct", self.reconstruct, RECONSTRUCTIONS)
        _require_whole("multiple", self.multiple, 1)
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        _require(not unknown and bool(self.kinds), "kinds", list(self.kinds), f"some of {', '.join(KINDS)}")
        _require(
            not {"query_head", "kv_group"} <= set(self.kinds),
            "kinds",
            list(self.kinds),
            "either query_head or kv_group, since both own the same heads",
        )
        check_kind_sparsity(self.kind_sparsity, self.kinds)
        ranked = not (self.without_dependency and self.units)
        _require(ranked, "without_dependency", True, "left out where units are chosen by hand")
        if self.layers is not None:
            parse_layers(self.layers)


@dataclass(frozen=True)
class EvalSpec:
    """How the result is measured: perplexity on `text` in windows of `window` tokens, `tokens` in all.

    `prompts` are completed by the dense and the pruned model and kept in `samples.json`.

    Attributes:
        tasks: benchmarks to score: suites, groups or tasks of lm-eval's.
        limit: questions a task, the first ones; None for all. num_fewshot: examples in the prompt, None
            for what the papers or the task say.
        benchmarks_dir: folder with `<task>/<split>.jsonl`; None reads from the hub.
        int8: measure the models with weights in 8 bits, too, beside those as they are.
    """

    text: str = "bundled"
    window: int = 256
    tokens: int = 4096
    prompts: tuple[str, ...] = (
        "The capital of France is",
        "Explain in one sentence why the sky is blue.",
        "Once upon a time, in a small village,",
    )
    max_new_tokens: int = 48
    efficiency: bool = True
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    num_fewshot: int | None = None
    benchmarks_dir: str | None = None
    int8: bool = False

    def __post_init__(self) -> None:
        measured = self.efficiency or not self.int8
        _require(measured, "int8", self.int8, "measured together with efficiency; leave out --no-efficiency")
        for name, least in (("limit", 1), ("num_fewshot", 0)):
            if getattr(self, name) is not None:
                _require_whole(name, getattr(self, name), least)
        _require_whole("window", self.window, 8)
        _require_whole("tokens", self.tokens, self.window)
        _require_whole("max_new_tokens", self.max_new_tokens, 1)


@dataclass(frozen=True)
class ExploreSpec:
    """Which analyses an exploring run makes, and with what.

    Attributes:
        criteria: scored side by side in one pass.
        sensitivity_kinds: what of a layer is pruned, some of `SENSITIVITY_KINDS`; `head` is every head alone.
        sensitivity_ratios: fractions of one layer's units that are removed, one point for each.
        sensitivity_criterion: which criterion picks those units.
        sensitivity_tokens: evaluation tokens per point, in windows of `EvalSpec.window`.
        options: the criteria's own options; each goes to every criterion that has it.
        config_only: find the groups from the config alone; no weights are read.
    """

    analyses: tuple[Analysis, ...] = ANALYSES
    criteria: tuple[str, ...] = ("taylor_first", "l2", "l1", "random")
    sensitivity_kinds: tuple[str, ...] = ("attention", "ffn")
    sensitivity_ratios: tuple[float, ...] = (0.5,)
    sensitivity_criterion: str = "taylor_first"
    sensitivity_tokens: int = 1024
    tau: float = 0.2
    options: dict[str, Any] = field(default_factory=dict)
    config_only: bool = False

    def __post_init__(self) -> None:
        _require(isinstance(self.options, dict), "options", self.options, "an object: option -> value")
        unknown = [name for name in self.analyses if name not in ANALYSES]
        wanted = f"some of {', '.join(ANALYSES)}"
        _require(not unknown and bool(self.analyses), "analyses", list(self.analyses), wanted)
        _require(bool(self.criteria), "criteria", list(self.criteria), "at least one criterion")
        check_tau(self.tau)
        for kind in self.sensitivity_kinds or ("",):
            check_name("sensitivity_kinds", kind, SENSITIVITY_KINDS)
        _require(bool(self.sensitivity_ratios), "sensitivity_ratios", [], "at least one number in (0, 1]")
        for ratio in self.sensitivity_ratios:
            _require(is_number(ratio) and 0 < ratio <= 1, "sensitivity_ratios", ratio, "numbers in (0, 1]")
        _require_whole("sensitivity_tokens", self.sensitivity_tokens, 8)
        alone = not self.config_only or self.analyses == ("groups",)
        _require(alone, "analyses", list(self.analyses), "groups alone where only the config is read")


@dataclass(frozen=True)
class RunSpec:
    """One run, whole. `name` is for people; `extra` records the data's hash and library versions."""

    goal: Goal = "prune"
    name: str = ""
    seed: int = 0
    model: ModelSpec = field(default_factory=ModelSpec)
    calibration: DataSpec = field(default_factory=DataSpec)
    explore: ExploreSpec = field(default_factory=ExploreSpec)
    prune: PruneSpec = field(default_factory=PruneSpec)
    recover: RecoverSpec = field(default_factory=RecoverSpec)
    evaluate: EvalSpec = field(default_factory=EvalSpec)
    sweep: SweepSpec = field(default_factory=SweepSpec)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        goals = get_args(Goal)
        _require(self.goal in goals, "goal", self.goal, f"one of {', '.join(goals)}")
        _require_whole("seed", self.seed, 0)
        alone = not self.prune.without_dependency or self.recover.method == "none"
        _require(alone, "without_dependency", True, "left out where the model is trained: it saves none")
        trains = self.goal != "recover" or self.recover.method != "none"
        _require(trains, "recover", self.recover.method, "a way to train, e.g. lora")

    @property
    def prunes(self) -> bool:
        """Whether `prune` says what goes, once or at every point of a sweep."""
        return self.goal in ("prune", "sweep")

    def to_json(self) -> str:
        """One JSON document, as in `spec.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> RunSpec:
        """Read a spec. Raises SpecError on anything that is no spec, naming the field."""
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise SpecError(
                f"This is no spec: {error}; give the JSON that a run keeps as spec.json."
            ) from error
        return _build(cls, raw, "spec")


_PARTS: dict[str, Any] = {
    "model": ModelSpec,
    "calibration": DataSpec,
    "explore": ExploreSpec,
    "prune": PruneSpec,
    "recover": RecoverSpec,
    "evaluate": EvalSpec,
    "sweep": SweepSpec,
}


def _build(cls: Any, raw: Any, where: str) -> Any:
    if not isinstance(raw, dict):
        raise SpecError(f"{where} must be a JSON object, got {raw!r}.")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    stray = sorted(set(raw) - set(fields))
    if stray:
        raise SpecError(f"{where} has no field {', '.join(map(repr, stray))}; it has {', '.join(fields)}.")
    values = {}
    for key, value in raw.items():
        if cls is RunSpec and key in _PARTS:
            value = _build(_PARTS[key], value, key)
        elif isinstance(value, list):
            value = tuple(value)
        values[key] = value
    try:
        return cls(**values)
    except (TypeError, AttributeError) as error:
        raise SpecError(f"{where} does not fit: {error}.") from error
