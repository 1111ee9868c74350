"""The measurements of the models in a comparison, and their recorded answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import ArtifactError
from core.results import words
from core.results.efficiency import Efficiency
from core.results.perplexity import PPL_ON, Perplexity, by_text, on_text
from core.results.tasks import TaskResult
from core.spec.evaluate import WORKBENCH
from pruneviz.data import runs
from pruneviz.data.contenders import Contender, in_8_bits, trained_alike, with_before
from pruneviz.data.runs import RunRecord, source_key

#: How `metrics.json` names what was measured with weights in 8 bits, and what that leaves as it is.
INT8 = "_int8"
SAME_IN_8_BITS = ("params", "macs", "kv_bytes_per_token")
#: Whose numbers in `metrics.json` have which ending.
ENDINGS = {"dense": "_before", "control": "_control", "pruned": "_after", "recovered": "_after"}
#: Which 8 bits they were, in `metrics.json` with an ending where there are several models.
KIND = "kind"


def columns(contenders: Sequence[Contender]) -> list[Contender]:
    """All that has numbers: each model, what it was before recovery, and itself with weights in 8 bits.

    A recovered model stands after the dense one that was trained on the same text, if the run did that.

    One in 8 bits that was chosen itself stands where it was chosen.
    """
    chosen = {contender.key for contender in contenders}
    shown = []
    for contender in with_before(contenders):
        small = None if contender.int8 or contender.record is None else in_8_bits(contender)
        shown += [model for model in (trained_alike(contender), contender) if model is not None]
        if small and small.key not in chosen and f"ppl{INT8}" in numbers(contender, ()):
            shown.append(small)
    return shown


@dataclass(frozen=True)
class OnText:
    """A model's perplexity on a text after the first.

    Attributes:
        numbers: `ppl` and its error, and what it was measured on (`PPL_ON`).
        perplexity: window by window; without its windows where they were not kept.
    """

    numbers: Mapping[str, Any]
    perplexity: Perplexity


def numbers(contender: Contender, records: Sequence[RunRecord]) -> dict[str, Any]:
    """Quantity -> value without ending, as the run measured it; plus what the perplexity was measured on.

    A model that no run left is looked up in the newest measurement of it.
    """
    return _numbers(contender, _metrics(contender, records))


def _metrics(contender: Contender, records: Sequence[RunRecord]) -> Mapping[str, Any]:
    if contender.record is not None:
        return contender.record.metrics
    return next((record.metrics for record in _measurements(contender.source, records)), {})


def _numbers(contender: Contender, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """As `numbers`, of names as in `metrics.json`."""
    values = dict(metrics) if contender.record is None else _of_run(contender, metrics)
    about = {name: values.get(name) for name in PPL_ON if name in values}
    if about:
        about["ppl_protocol"] = about.get("ppl_protocol") or WORKBENCH  # an older run names none
    if contender.int8:
        small = {name.removesuffix(INT8): value for name, value in values.items() if name.endswith(INT8)}
        values = {**{name: values[name] for name in SAME_IN_8_BITS if name in values}, **small}
        if contender.record is not None and "ppl" in small:
            values[KIND] = contender.record.metrics.get(f"{KIND}{INT8}{ENDINGS[contender.side]}")
    return {**values, **about}


def _of_run(contender: Contender, metrics: Mapping[str, Any]) -> dict[str, Any]:
    ending = ENDINGS[contender.side]
    values: dict[str, Any] = {
        name.removesuffix(ending): value
        for name, value in metrics.items()
        if name.endswith(ending) and isinstance(value, (int, float))
    }
    if contender.key.endswith(":pruned"):
        values = {name: value for name, value in values.items() if INT8 not in name}
        values |= {name: metrics.get(f"{name}_pruned") for name in ("ppl", "ppl_stderr", "kl", "kl_stderr")}
    if contender.side == "control":  # training changes no size
        values |= {name: metrics.get(f"{name}_before") for name in SAME_IN_8_BITS}
    return {**values, **{name: metrics.get(name) for name in PPL_ON}}


def perplexity_of(contender: Contender, records: Sequence[RunRecord]) -> Perplexity | None:
    """The perplexity window by window; without its windows where they were not kept, None if not measured."""
    return _perplexity(contender, records, 0, numbers(contender, records), None)


def on_more_texts(contender: Contender, records: Sequence[RunRecord]) -> tuple[OnText, ...]:
    """Its perplexities on the texts after the first, as far as they were measured."""
    rows = enumerate(by_text(_metrics(contender, records)))
    measured = []
    for number, row in list(rows)[1:]:
        values, sha256 = _numbers(contender, row), row.get("ppl_sha256")
        perplexity = _perplexity(contender, records, number, values, sha256)
        if perplexity is not None:
            measured.append(OnText(values, perplexity))
    return tuple(measured)


def _perplexity(
    contender: Contender,
    records: Sequence[RunRecord],
    number: int,
    values: Mapping[str, Any],
    sha256: str | None,
) -> Perplexity | None:
    if values.get("ppl") is None:
        return None
    if contender.record is None:
        record, side = _measurements(contender.source, records)[0], "model"
    else:
        record, side = contender.record, contender.side
    perplexities = runs.read_perplexities(record.path)
    tokens, window = (values.get(key) or 0 for key in ("ppl_tokens", "ppl_window"))
    plain = Perplexity(values["ppl"], math.log(values["ppl"]), tokens, window)
    of_texts = perplexities.get(f"{side} int8" if contender.int8 else side, ())
    return on_text(of_texts, number, sha256) or plain


def made_on(contender: Contender) -> str:
    """What chose the units that went: calibration text, its windows, the seed; empty of a dense model."""
    if contender.record is None or contender.side in ("dense", "control"):
        return ""
    rows = by_text(contender.record.metrics)
    return words.calibrated_on(rows[0]) if rows else ""


def times_of(contender: Contender, records: Sequence[RunRecord]) -> Efficiency | None:
    """The times behind its numbers, round by round; None where they were not kept.

    Training changes no size and no speed: what a model was before recovery has the times of after.
    """
    if contender.record is None:
        record, side = next(iter(_measurements(contender.source, records)), None), "model"
    else:
        record, side = contender.record, contender.side
    times = runs.read_efficiency(record.path) if record else {}
    if side == "pruned" and "recovered" in times:
        side = "recovered"
    return times.get(f"{side} int8" if contender.int8 else side)


def scores(contender: Contender, records: Sequence[RunRecord]) -> dict[str, TaskResult]:
    """Task -> result: of its own run, and what newer to older measurements of the same model add."""
    if contender.int8:
        return {}
    results: dict[str, TaskResult] = {}
    own = [(contender.record, contender.side)] if contender.record else []
    others = [(record, "model") for record in _measurements(contender.source, records)]
    for record, side in [*own, *others]:
        try:
            scored = runs.read_benchmarks(record.path).get(side)
        except ArtifactError:  # said on the Runs tab
            continue
        results = {**(scored.tasks if scored else {}), **results}
    return results


def measured_by(contender: Contender, records: Sequence[RunRecord]) -> str:
    """The id of the run that its numbers are of; empty without any."""
    record = contender.record or next(iter(_measurements(contender.source, records)), None)
    return record.id if record else ""


def _measurements(source: str, records: Sequence[RunRecord]) -> list[RunRecord]:
    """Finished measurements of this very model, in the order given."""
    return [
        record for record in records
        if source and record.state == "finished" and record.spec and record.spec.goal == "evaluate"
        and source_key(record.model) == source_key(source)
    ]  # fmt: skip


def kept_answer(contender: Contender, prompt: str) -> dict[str, Any]:
    """{"text", "tokens_per_second"} that the run kept for this prompt; empty if it kept none.

    Runs measure models in 8 bits, but do not ask them.
    """
    samples = [] if contender.int8 else kept_samples(contender)
    sample = next((entry for entry in samples if entry.get("prompt") == prompt), {})
    return dict(sample.get(contender.side) or {})


def kept_samples(contender: Contender) -> list[dict[str, Any]]:
    """`samples.json` of the contender's run; empty if there is none or it is damaged."""
    if contender.record is None:
        return []
    try:
        return runs.read_samples(contender.record.path)
    except ArtifactError:  # said on the Runs tab; a missing answer is no reason to show no numbers
        return []
