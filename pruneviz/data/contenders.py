"""Which models stand side by side on the Compare tab.

The address names them by keys, in order: `dense`, or the id of a run that left a model or measured one that
none left, such as a model of equal size as a baseline; `:int8` after it asks for the same with its weights in
8 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import ModelError
from core.results import words
from pruneviz.data.runs import RunRecord, source_key
from pruneviz.data.tokenizers import tokenizer_key

DENSE = "dense"
MOST = 4
#: Goals of runs that leave a model.
LEAVING = ("prune", "recover")
#: What a key ends in that asks for weights in 8 bits.
INT8_KEY = ":int8"


@dataclass(frozen=True)
class Contender:
    """One model of the comparison.

    Attributes:
        key: what the address calls it; unique.
        title, detail: what a person reads.
        source: what the engine reads; empty for a model that was not kept, as before a recovery.
        side: `dense`, `pruned` or `recovered`, as in the artifacts of `record`.
        record: the run whose numbers and kept answers these are; None for a model that no run left, whose
            numbers are those of its newest measurement.
        int8: its weights are put in 8 bits once it is read.
        adapter: merged into the weights when it is read, as the run did; empty for none.
    """

    key: str
    title: str
    detail: str
    source: str
    side: str
    record: RunRecord | None = None
    int8: bool = False
    adapter: str = ""

    @property
    def example(self) -> bool:
        """Whether it was left by an example, whose weights are not here."""
        return self.record is not None and self.record.example and self.side != "dense"


@dataclass(frozen=True)
class Lineup:
    """The models that were chosen and are there, and what has to be said of them.

    Attributes:
        base: contender key -> the dense model it comes from.
        notes: sentences for people.
        strange: keys of those, without `:int8`, that read text as other tokens than the first: their
            perplexities per token are no comparison.
    """

    contenders: tuple[Contender, ...]
    base: dict[str, str]
    notes: tuple[str, ...] = ()
    strange: frozenset[str] = frozenset()


def finished(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs that left a model, in the order given."""
    return [record for record in records if left_a_model(record)]


def left_a_model(record: RunRecord) -> bool:
    """Whether this run came to its end and has a model that can be compared."""
    spec = record.spec if record.state == "finished" else None
    return spec is not None and spec.goal in LEAVING and not spec.prune.without_dependency


def baselines(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The newest measurement of every model that no run here left, nor began with."""
    own = {str(record.path) for record in records}
    own |= {base_of(str(record.path), records) for record in finished(records)}
    newest: dict[str, RunRecord] = {}
    for record in records:
        if record.state == "finished" and record.spec and record.spec.goal == "evaluate":
            newest.setdefault(source_key(record.model), record)
    return [record for source, record in newest.items() if source not in own]


def keys_of(models: str, run: str, records: Sequence[RunRecord]) -> list[str]:
    """The keys in the address; without any, the dense model and the run shown elsewhere, or the newest.

    Where no run of one's own has left a model, all examples, before the run shown elsewhere if it left none;
    where there are no examples, the two that were measured last.
    """
    keys, left = [key for key in dict.fromkeys(models.split(",")) if key], finished(records)
    measured = baselines(records)
    examples = [record.id for record in left[: MOST - 1]] if left and left[0].example else []
    if run and run not in map(plain_key, keys):
        beside = [] if run in (record.id for record in (*left, *measured)) else examples
        keys = [DENSE, *beside, run]
    if not keys and left:
        keys = [DENSE, *(examples or [left[0].id])]
    return keys or [record.id for record in measured[:2]]


def plain_key(key: str) -> str:
    """The key of the same model with its weights as they are."""
    return key.removesuffix(INT8_KEY)


def choices(records: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """(label, key) of all models that can be chosen; empty while no run has left or measured one."""
    left = finished(records)
    plain = [("Dense model", DENSE), *((_label(r), r.id) for r in left)] if left else []
    plain += [(f"Measured: {_name(r.model)} · {r.id}", r.id) for r in baselines(records)]
    weightless = {record.id for record in left if record.example}
    in_8 = [(f"In 8 bits: {label}", f"{key}{INT8_KEY}") for label, key in plain if key not in weightless]
    return [*plain, *in_8]


def line_up(records: Sequence[RunRecord], keys: Sequence[str], model: str) -> Lineup:
    """Find the chosen models.

    Args:
        model: the dense model where no chosen run says which.
    """
    with_model = {record.id: record for record in finished(records)}
    measured = {record.id: record for record in baselines(records)}
    chosen = [with_model[key] for key in map(plain_key, keys) if key in with_model]
    contenders = []
    for key in keys:
        plain = plain_key(key)
        if plain == DENSE:
            contender = _dense(chosen, records, model)
        elif plain in with_model:
            contender = _left_by(with_model[plain])
        elif plain in measured:
            contender = _baseline(measured[plain])
        else:
            continue
        contenders.append(contender if key == plain else in_8_bits(contender))
    base = {contender.key: base_of(contender.source, records) for contender in contenders}
    ids = {record.id for record in records}
    there = {DENSE, *with_model, *measured}
    missing = dict.fromkeys(key for key in map(plain_key, keys) if key not in there)
    notes = [_left_out(key, key in ids) for key in missing]
    if len(contenders) > MOST:
        notes.append(f"Only {MOST} models fit side by side; {len(contenders) - MOST} of them are left out.")
    contenders = contenders[:MOST]
    first = base[contenders[0].key] if contenders else ""
    strange = frozenset(
        plain_key(contender.key) for contender in contenders if _differ({first, base[contender.key]})
    )
    if strange:
        notes.append(
            "Not all of these models have the first one's tokenizer: answers can be compared, perplexities "
            "of the others cannot, since they count other tokens."
        )
    return Lineup(tuple(contenders), base, tuple(notes), strange)


def _left_out(key: str, run_exists: bool) -> str:
    if run_exists:
        return f"No model has come out of run {key} so far; it is left out."
    return f"There is no run {key} in this folder any more; it is left out."


def before_recovery(contender: Contender) -> Contender | None:
    """What the recovered model was before; its numbers were kept, its weights were not."""
    record = None if contender.int8 else contender.record
    if contender.side != "recovered" or record is None or "ppl_pruned" not in record.metrics:
        return None
    return Contender(
        f"{contender.key}:pruned", "Before recovery", contender.title, "", "pruned", record
    )  # fmt: skip


def trained_alike(contender: Contender) -> Contender | None:
    """The dense model trained on what a recovered one was trained on; its numbers were kept, no weights."""
    record = None if contender.int8 else contender.record
    if contender.side != "recovered" or record is None or "ppl_control" not in record.metrics:
        return None
    title = "Dense model, trained on the same text"
    return Contender(f"{contender.key}:control", title, contender.title, "", "control", record)


def with_before(contenders: Sequence[Contender]) -> list[Contender]:
    """Each recovered model after what it was before recovery: rankings flip, so both are shown."""
    return [model for each in contenders for model in (before_recovery(each), each) if model is not None]


def in_8_bits(contender: Contender) -> Contender:
    """The same model with its weights in 8 bits."""
    return replace(
        contender, key=f"{contender.key}{INT8_KEY}", title=f"{contender.title}, 8 bits", int8=True
    )  # fmt: skip


def base_of(source: str, records: Sequence[RunRecord]) -> str:
    """The dense model at the beginning of a chain of runs."""
    by_path = {str(record.path): record for record in records}
    seen: set[str] = set()
    while (record := by_path.get(source_key(source))) is not None and source not in seen:
        seen.add(source)
        source = record.model
    return source_key(source)


def _adapter(record: RunRecord, records: Sequence[RunRecord]) -> str:
    """The adapter that was merged into the dense model at the beginning of a run's chain."""
    by_path, seen, at = {str(each.path): each for each in records}, set[str](), record
    while (before := by_path.get(source_key(at.model))) is not None and at.id not in seen:
        seen.add(at.id)
        at = before
    return at.spec.model.adapter if at.spec else ""


def _beginning(record: RunRecord, records: Sequence[RunRecord]) -> RunRecord:
    """The run of a chain that had the dense model in hand, or whose numbers of it a recovery took over."""
    by_path, seen, at = {str(each.path): each for each in records}, set[str](), record
    while (before := by_path.get(source_key(at.model))) is not None and at.id not in seen:
        seen.add(at.id)
        if at.spec is not None and at.spec.goal == "prune":
            record = before
        at = before
    return record


def _dense(chosen: Sequence[RunRecord], records: Sequence[RunRecord], model: str) -> Contender:
    """With the numbers of the first run that measured it: of a model that was cut twice, the run before."""
    measured = [_beginning(record, records) for record in chosen]
    first = next((r for r in measured if r.metrics.get("ppl_before") is not None), None)
    source = base_of(str(chosen[0].path), records) if chosen else model
    adapter = _adapter(chosen[0], records) if chosen else ""
    named = f"{_name(source)} with {_name(adapter)} merged" if adapter else _name(source)
    return Contender(DENSE, "Dense model", named, source, "dense", first, adapter=adapter)


def _baseline(record: RunRecord) -> Contender:
    """A model as it was measured, whose name is all that is known of where it comes from."""
    adapter, told = record.spec.model.adapter if record.spec else "", f"measured by {record.id}"
    return Contender(record.id, _name(record.model), told, record.model, "dense", adapter=adapter)


def _name(source: str) -> str:
    return Path(source).name or source


def _left_by(record: RunRecord) -> Contender:
    recovered = "ppl_recovered" in record.metrics
    return Contender(
        record.id, run_title(record), record.id, str(record.path),
        "recovered" if recovered else "pruned", record,
    )  # fmt: skip


def run_title(record: RunRecord) -> str:
    """The run's name, or its method and how much went."""
    spec = record.spec
    assert spec is not None, "a finished run has a spec"
    if spec.name:
        return spec.name
    removed = words.percent(record.metrics.get("sparsity", spec.prune.sparsity))
    recovered = ", recovered" if "ppl_recovered" in record.metrics else ""
    return f"{spec.prune.method if spec.goal == 'prune' else 'pruned'} {removed}{recovered}"


def _label(record: RunRecord) -> str:
    name = "example" if record.example else record.id
    return f"{run_title(record)} · {Path(record.model).name} · {name}"


def _differ(bases: set[str]) -> bool:
    """Whether models from these dense ones read text as different tokens, as far as their files tell."""
    if len(bases) < 2:
        return False
    try:
        return len({tokenizer_key(base) or base for base in bases}) > 1
    except ModelError:
        return True
