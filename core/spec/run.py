"""What a run is asked to do: JSON in and out, checked when it is made."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from core.checked import checked, explain
from core.errors import SpecError
from core.option import option
from core.spec.calibration import DataSpec
from core.spec.checks import require
from core.spec.choices import SEARCHED
from core.spec.cluster import ClusterSpec
from core.spec.evaluate import EvalSpec
from core.spec.explore import ExploreSpec
from core.spec.export import ExportSpec
from core.spec.model import ModelSpec
from core.spec.past import FORMAT, upgrade
from core.spec.prune import PruneSpec
from core.spec.recommended import RECOMMENDED, Recipe, with_best
from core.spec.recover import OF_A_TEACHER, RecoverSpec
from core.spec.sweep import SweepSpec

Goal = Literal["explore", "prune", "recover", "evaluate", "sweep", "export"]
#: Where the curves of a run can be mirrored to; each needs its package, see requirements-track.txt.
TRACKERS = {
    "trackio": "Trackio",
    "tensorboard": "TensorBoard",
    "wandb": "Weights & Biases",
    "mlflow": "MLflow",
}


@checked
class RunSpec:
    """One run, whole. `extra` records the data's hash and library versions.

    Its entry `unread` holds what the run was asked for and no release since then knows: path -> value;
    `recommended` what was left open, and what was taken.
    """

    goal: Goal = option("prune", "What the run does.", choices=get_args(Goal), flag="")
    name: str = option("", "A name for the run, for people.", title="Name, if you like", default_text="none")
    seed: int = option(0, "Seed of every random choice.", title="Seed", ge=0)
    format: int = option(
        FORMAT,
        "In which words the spec is written; an earlier one is read in today's.",
        choices=(FORMAT,),
        flag="",
    )
    data_dir: str | None = option(
        None,
        "Folder with copies of data sets that have a name, as <name>/<split>.jsonl, .parquet, .txt, …",
        title="Folder with data sets",
        default_text="PRUNEVIZ_DATA_DIR, else the hub",
        metavar="FOLDER",
        place=True,
    )
    track: tuple[str, ...] = option(
        (),
        "Where else the run's curves and results go as they come; one that cannot be reached never stops it.",
        title="Mirror metrics to",
        choices=TRACKERS,
        default_text="nowhere",
    )
    model: ModelSpec = dataclasses.field(default_factory=ModelSpec)
    calibration: DataSpec = dataclasses.field(default_factory=DataSpec)
    explore: ExploreSpec = dataclasses.field(default_factory=ExploreSpec)
    prune: PruneSpec = dataclasses.field(default_factory=PruneSpec)
    recover: RecoverSpec = dataclasses.field(default_factory=RecoverSpec)
    evaluate: EvalSpec = dataclasses.field(default_factory=EvalSpec)
    sweep: SweepSpec = dataclasses.field(default_factory=SweepSpec)
    export: ExportSpec = dataclasses.field(default_factory=ExportSpec)
    cluster: ClusterSpec = dataclasses.field(default_factory=ClusterSpec)
    extra: dict[str, Any] = option(dict, flag="")

    def __post_init__(self) -> None:
        trains = self.goal != "recover" or self.recover.method != "none"
        require(trains, "recover", self.recover.method, "a way to train, lora or distill")

    @property
    def warning(self) -> str:
        """What the run was asked for that this release does not know; empty if nothing."""
        unread = ", ".join(f"{path}={value!r}" for path, value in self.extra.get("unread", {}).items())
        return f"its spec asks for {unread}, which no longer exists; that is left out." if unread else ""

    @property
    def idle(self) -> list[str]:
        """A sentence for each option of `prune` and `recover` that was given and counts for nothing here."""
        asked, s, teaches = self.prune, "", self.recover.method != "lora"
        scopes, refits, drops = [asked.scope], [asked.reconstruct], [asked.drop]
        if self.goal == "sweep":
            swept, s = self.sweep, "s"
            scopes, refits, drops = list(swept.scopes), list(swept.reconstruct), list(swept.drops)
        counts: list[tuple[Any, str, bool, str]] = [
            (asked, "recovery_samples", "pre_pruning" in refits, f"--reconstruct{s} pre_pruning"),
            (asked, "search_tokens", SEARCHED in scopes, f"--scope{s} {SEARCHED}"),
            (asked, "search_rounds", SEARCHED in scopes, f"--scope{s} {SEARCHED}"),
            (asked, "drop_by", any(drops), f"--drop{s}"),
            (asked, "drop", not s, "a pruning run; a sweep takes --drops"),
        ]
        counts = counts if self.goal in ("prune", "sweep") else []
        if self.goal in ("prune", "recover"):
            counts += [(self.recover, name, teaches, "--recover distill") for name in OF_A_TEACHER]
        return [
            f"{name} {getattr(part, name)} counts for nothing without {wanted}."
            for part, name, used, wanted in counts
            if not used and getattr(part, name) != getattr(type(part)(), name)
        ]

    def settled(self, *, unseen: bool = False) -> RunSpec:
        """The same with a name for all that is `recommended`, and in `extra` why. Points of a sweep name it.

        Args:
            unseen: what matrices read cannot be watched in this model.
        """
        lent = self.model.lent
        if self.goal == "explore":
            named = with_best(self.explore.criteria, lent=lent)
            return dataclasses.replace(self, explore=dataclasses.replace(self.explore, criteria=named))
        if self.goal == "sweep":
            swept = RECOMMENDED in self.sweep.methods
            why = Recipe(*3 * [RECOMMENDED]).because(unseen=unseen, lent=lent) if swept else ""
            sweep = self.sweep.settled(unseen=unseen)
            return dataclasses.replace(self, sweep=sweep, extra=self._because(why))
        if self.goal != "prune":
            return self
        why = self.prune.because(unseen=unseen, lent=lent)
        settled = self.prune.settled(unseen=unseen, lent=lent)
        return dataclasses.replace(self, prune=settled, extra=self._because(why))

    def _because(self, why: str) -> dict[str, Any]:
        return {**self.extra, **({"recommended": why} if why else {})}

    @property
    def prunes(self) -> bool:
        """Whether `prune` says what goes, once or at every point of a sweep."""
        return self.goal in ("prune", "sweep")

    def to_json(self) -> str:
        """One JSON document, as in `spec.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> RunSpec:
        """Read a spec, of an earlier release, too, if a run kept it.

        Raises:
            SpecError: it is no spec; names the field.
        """
        raw = _object(text)
        if raw is not None:
            kept = isinstance(raw.get("extra"), dict) and "versions" in raw["extra"]
            text = json.dumps(_today(raw, 1 if kept else FORMAT))
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "json_invalid":
                raise SpecError(
                    f"This is no spec: {first['msg']}; give the JSON that a run keeps as spec.json."
                ) from error
            raise explain(cls, error) from error

    @classmethod
    def from_run(cls, text: str) -> RunSpec:
        """Read the spec that a run keeps: fields that no longer exist are put aside, see `extra`.

        Raises:
            SpecError: what else is not a spec; ValueError: facts that no run adds.
        """
        raw = _object(text)
        if raw is None or not set(raw) & {field.name for field in dataclasses.fields(cls)}:
            return cls.from_json(text)  # which says what is wrong with it
        unread = _put_aside(raw)
        if unread and not raw:
            raise SpecError(f"This is no spec: a run has no field {' or '.join(unread)}.")
        spec = cls.from_json(json.dumps(_today(raw, 1)))
        _FACTS.validate_python(spec.extra)
        before = spec.extra.get("unread", {})
        return dataclasses.replace(spec, extra={**spec.extra, "unread": before | unread}) if unread else spec


class _Text(TypedDict):
    """A text that was read."""

    name: str
    sha256: str


class _Facts(TypedDict, total=False):
    """What `extra` holds, as far as anybody reads it."""

    versions: dict[str, str]
    calibration: _Text
    evaluation: _Text
    evaluation_also: list[_Text]
    unread: dict[str, Any]
    recommended: str


_ADAPTER, _FACTS = TypeAdapter(RunSpec), TypeAdapter(_Facts)


def _object(text: str) -> dict[str, Any] | None:
    """A JSON object, or None for whatever else a text is."""
    try:
        raw = json.loads(text)
    except ValueError:
        return None
    return raw if isinstance(raw, dict) else None


def _today(raw: dict[str, Any], unless_said: int) -> dict[str, Any]:
    """A spec's JSON in today's words; `unless_said` is the format of one that does not say its own."""
    written = raw.get("format", unless_said)
    if type(written) is int and 1 <= written < FORMAT:
        upgrade(raw, written)
    return raw


def _put_aside(raw: dict[str, Any]) -> dict[str, Any]:
    """Take what no class declares out of a spec's JSON. Returns it: dotted path -> value."""
    unread = {}
    for where, cls in [("", RunSpec), *((f.name, f.default_factory) for f in dataclasses.fields(RunSpec))]:
        part = raw.get(where) if where else raw
        if dataclasses.is_dataclass(cls) and isinstance(part, dict):
            names = {field.name for field in dataclasses.fields(cls)}
            for name in [name for name in part if name not in names]:
                unread[f"{where}.{name}".lstrip(".")] = part.pop(name)
    return unread
