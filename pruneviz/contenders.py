"""Which models stand side by side on the Compare tab, and where their numbers are.

The address names them by keys, in order: `dense`, or the id of a run that left a model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.errors import ArtifactError, ModelError
from core.evaluate.perplexity_results import Perplexity
from core.evaluate.task_results import TaskResult
from pruneviz import runs, words
from pruneviz.runs import RunRecord, source_key
from pruneviz.tokenizers import tokenizer_key

DENSE = "dense"
MOST = 4
#: Goals of runs that leave a model.
LEAVING = ("prune", "recover")
#: How `metrics.json` names what was measured with weights in 8 bits, and what that leaves as it is.
INT8 = "_int8"
SAME_IN_8_BITS = ("params", "macs", "kv_bytes_per_token")
#: Whose numbers in `metrics.json` have which ending.
ENDINGS = {"dense": "_before", "pruned": "_after", "recovered": "_after"}


@dataclass(frozen=True)
class Contender:
    """One model of the comparison.

    Attributes:
        key: what the address calls it; unique.
        title, detail: what a person reads.
        source: what the engine reads; empty for a model that was not kept, as before a recovery.
        side: `dense`, `pruned` or `recovered`, as in the artifacts of `record`.
        record: the run whose numbers and kept answers these are; None for a dense model without runs.
    """

    key: str
    title: str
    detail: str
    source: str
    side: str
    record: RunRecord | None = None


@dataclass(frozen=True)
class Lineup:
    """The models that were chosen and are there, and what has to be said of them.

    Attributes:
        base: contender key -> the dense model it comes from.
        notes: sentences for people.
        tokenizers_differ: perplexities per token are then no comparison.
    """

    contenders: tuple[Contender, ...]
    base: dict[str, str]
    notes: tuple[str, ...] = ()
    tokenizers_differ: bool = False


def finished(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs that left a model, in the order given."""
    return [record for record in records if left_a_model(record)]


def left_a_model(record: RunRecord) -> bool:
    """Whether this run came to its end and has a model that can be compared."""
    return record.state == "finished" and record.spec is not None and record.spec.goal in LEAVING


def keys_of(models: str, run: str, records: Sequence[RunRecord]) -> list[str]:
    """The keys in the address; without any, the dense model and the run shown elsewhere, or the newest."""
    keys = [key for key in dict.fromkeys(models.split(",")) if key]
    if run and run not in keys:
        keys = [DENSE, run]
    if not keys and (left := finished(records)):
        keys = [DENSE, left[0].id]
    return keys


def choices(records: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """(label, key) of all models that can be chosen; empty while no run has left one."""
    left = finished(records)
    return [("Dense model", DENSE), *((_label(r), r.id) for r in left)] if left else []


def line_up(records: Sequence[RunRecord], keys: Sequence[str], model: str) -> Lineup:
    """Find the chosen models.

    Args:
        model: the dense model where no chosen run says which.
    """
    there = {record.id: record for record in finished(records)}
    chosen = [there[key] for key in keys if key in there]
    found = [
        _dense(chosen, records, model) if key == DENSE else _left_by(there[key])
        for key in keys
        if key == DENSE or key in there
    ]
    base = {one.key: base_of(one.source, records) for one in found}
    known = {record.id for record in records}
    notes = [_left_out(key, key in known) for key in keys if key != DENSE and key not in there]
    if len(found) > MOST:
        notes.append(f"Only {MOST} models fit side by side; {len(found) - MOST} of them are left out.")
    found = found[:MOST]
    differ = _differ({base[one.key] for one in found})
    if differ:
        notes.append(
            "These models come from different ones with different tokenizers: answers can be compared, "
            "perplexities cannot, since they count other tokens."
        )
    return Lineup(tuple(found), base, tuple(notes), differ)


def _left_out(key: str, known: bool) -> str:
    if known:
        return f"No model has come out of run {key} so far; it is left out."
    return f"There is no run {key} in this folder any more; it is left out."


def before_recovery(contender: Contender) -> Contender | None:
    """What the recovered model was before; its numbers were kept, its weights were not."""
    record = contender.record
    if contender.side != "recovered" or record is None or "ppl_pruned" not in record.metrics:
        return None
    return Contender(
        f"{contender.key}:pruned", "Before recovery", contender.title, "", "pruned", record
    )  # fmt: skip


def with_before(contenders: Sequence[Contender]) -> list[Contender]:
    """Each recovered model after what it was before recovery: rankings flip, so both are shown."""
    return [one for each in contenders for one in (before_recovery(each), each) if one is not None]


def columns(contenders: Sequence[Contender]) -> list[Contender]:
    """All that has numbers: each model, what it was before recovery, and itself with weights in 8 bits."""
    return [one for each in with_before(contenders) for one in (each, _in_8_bits(each)) if one is not None]


def _in_8_bits(contender: Contender) -> Contender | None:
    """The model with its weights in 8 bits, if the run measured that; its weights were not kept."""
    if contender.record is None or f"ppl{INT8}" not in numbers(contender, ()):
        return None
    return replace(contender, key=f"{contender.key}:int8", title=f"{contender.title}, 8 bits", source="")


def base_of(source: str, records: Sequence[RunRecord]) -> str:
    """The dense model at the beginning of a chain of runs."""
    by_path = {str(record.path): record for record in records}
    seen: set[str] = set()
    while (record := by_path.get(source_key(source))) is not None and source not in seen:
        seen.add(source)
        source = record.model
    return source_key(source)


def numbers(contender: Contender, records: Sequence[RunRecord]) -> dict[str, Any]:
    """Quantity -> value without ending, as the run measured it; plus what the perplexity was measured on.

    A model that no run left is looked up in the newest measurement of it.
    """
    if contender.record is None:
        return next((dict(record.metrics) for record in _measurements(contender.source, records)), {})
    metrics = contender.record.metrics
    ending = ENDINGS[contender.side]
    found: dict[str, Any] = {
        name.removesuffix(ending): value
        for name, value in metrics.items()
        if name.endswith(ending) and isinstance(value, (int, float))
    }
    if contender.key.endswith(":pruned"):
        found = {name: value for name, value in found.items() if INT8 not in name}
        found |= {name: metrics.get(f"{name}_pruned") for name in ("ppl", "ppl_stderr")}
    if contender.key.endswith(":int8"):
        small = {name.removesuffix(INT8): value for name, value in found.items() if name.endswith(INT8)}
        found = {**{name: found[name] for name in SAME_IN_8_BITS if name in found}, **small}
    about = ("ppl_text", "ppl_window", "ppl_tokens")
    return {**found, **{name: metrics.get(name) for name in about}}


def perplexity_of(contender: Contender, records: Sequence[RunRecord]) -> Perplexity | None:
    """The perplexity window by window; without its windows where they were not kept, None if not measured."""
    known = numbers(contender, records)
    if known.get("ppl") is None:
        return None
    if contender.record is None:
        record, side = _measurements(contender.source, records)[0], "model"
    else:
        record, side = contender.record, contender.side
    kept = runs.read_perplexities(record.path)
    tokens, window = (known.get(key) or 0 for key in ("ppl_tokens", "ppl_window"))
    plain = Perplexity(known["ppl"], math.log(known["ppl"]), tokens, window)
    return kept.get(f"{side} int8" if contender.key.endswith(":int8") else side, plain)


def scores(contender: Contender, records: Sequence[RunRecord]) -> dict[str, TaskResult]:
    """Task -> result: of its own run, and what newer to older measurements of the same model add."""
    found: dict[str, TaskResult] = {}
    if contender.key.endswith(":int8"):
        return found
    own = [(contender.record, contender.side)] if contender.record else []
    others = [(record, "model") for record in _measurements(contender.source, records)]
    for record, side in [*own, *others]:
        try:
            found = {**runs.read_benchmarks(record.path).get(side, {}), **found}
        except ArtifactError:  # said on the Runs tab
            continue
    return found


def _measurements(source: str, records: Sequence[RunRecord]) -> list[RunRecord]:
    """Finished measurements of this very model, in the order given."""
    return [
        record for record in records
        if source and record.state == "finished" and record.spec and record.spec.goal == "evaluate"
        and source_key(record.model) == source_key(source)
    ]  # fmt: skip


def kept_answer(contender: Contender, prompt: str) -> dict[str, Any]:
    """{"text", "tokens_per_second"} that the run kept for this prompt; empty if it kept none."""
    samples = kept_samples(contender)
    found = next((one for one in samples if one.get("prompt") == prompt), {})
    return dict(found.get(contender.side) or {})


def kept_samples(contender: Contender) -> list[dict[str, Any]]:
    """`samples.json` of the contender's run; empty if there is none or it is damaged."""
    if contender.record is None:
        return []
    try:
        return runs.read_samples(contender.record.path)
    except ArtifactError:  # said on the Runs tab; a missing answer is no reason to show no numbers
        return []


def _dense(chosen: Sequence[RunRecord], records: Sequence[RunRecord], model: str) -> Contender:
    """With the numbers of the first run that measured it."""
    first = next((r for r in chosen if r.metrics.get("ppl_before") is not None), None)
    source = base_of(str(chosen[0].path), records) if chosen else model
    return Contender(DENSE, "Dense model", Path(source).name or source, source, "dense", first)


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
    return f"{run_title(record)} · {Path(record.model).name} · {record.id}"


def _differ(bases: set[str]) -> bool:
    """Whether models from these dense ones read text as different tokens, as far as their files tell."""
    if len(bases) < 2:
        return False
    try:
        return len({tokenizer_key(base) or base for base in bases}) > 1
    except ModelError:
        return True
