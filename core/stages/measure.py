"""What a run measures before and after the cut: perplexity, answers, efficiency."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from core.capture.statistics import check_weights
from core.errors import ArtifactError
from core.evaluate.efficiency import measure as measure_efficiency
from core.evaluate.generation import generate
from core.evaluate.perplexity import perplexity
from core.files import read_record, write_json
from core.models.load import Loaded, load
from core.models.texts import consecutive_windows, evaluation_text
from core.results.efficiency import EFFICIENCY, SPREADS, Efficiency, keep_efficiency, read_efficiency
from core.results.perplexity import Perplexity, keep_perplexity, read_perplexities
from core.runs.artifacts import CHECKPOINT, SAMPLES, read_samples, read_spec
from core.stages.work import Work, kept, source_metrics
from core.surgery.int8 import quantized

BASELINE = "baseline.json"
#: The pruned model before it is trained, and what its numbers are called.
CUT = "pruned.json"
TIMINGS = ("latency_ms", "tokens_per_second", "memory_gib")


@dataclass(frozen=True)
class Measured:
    """One model, measured.

    Attributes:
        samples: {"text", "tokens_per_second"} per prompt.
        efficiency: `TIMINGS` and their spreads, empty where not measured; `int8` holds
            the same of the model in 8 bits, and its `ppl` and `ppl_stderr`.
    """

    perplexity: Perplexity
    samples: list[dict[str, Any]] = field(default_factory=list)
    efficiency: dict[str, Any] = field(default_factory=dict)

    @property
    def ppl(self) -> float:
        """The perplexity's value."""
        return self.perplexity.ppl


def baseline(work: Work, loaded: Loaded) -> Measured:
    """The dense model before anything is cut; kept in `checkpoint/` for a resumed run."""
    work.recorder.stage("baseline")
    found = _kept_or(work, BASELINE, lambda: _dense(work, loaded))
    work.recorder.metric("ppl_before", 0, found.ppl)
    return found


def alone(work: Work, loaded: Loaded) -> Measured:
    """One model by itself."""
    work.recorder.stage("evaluate")
    found = quality(work, loaded, "model")
    work.recorder.metric("ppl", 0, found.ppl)
    timed = _efficiency(work, {"model": loaded})["model"] if work.spec.evaluate.efficiency else {}
    return replace(found, efficiency=timed)


def _dense(work: Work, loaded: Loaded) -> Measured:
    found = quality(work, loaded, "dense")
    if work.spec.evaluate.efficiency and not roomy(loaded):
        found = replace(found, efficiency=_efficiency(work, {"dense": loaded})["dense"])
    return found


def before_training(work: Work, pruned: Loaded) -> Measured:
    """The pruned model before it is trained; kept in `checkpoint/` for a resumed run."""
    work.recorder.stage("measure")
    found = _kept_or(work, CUT, lambda: quality(work, pruned, "pruned"))
    work.recorder.metric("ppl_pruned", 0, found.ppl)
    return found


def untimed(work: Work) -> Work:
    """The same work without measuring efficiency: masks do not make a model faster."""
    return replace(work, spec=replace(work.spec, evaluate=replace(work.spec.evaluate, efficiency=False)))


def coupled(work: Work, masked: Loaded) -> Measured:
    """The model under the masks of a plan: perplexity alone."""
    work.recorder.stage("measure")
    silent = replace(work, spec=replace(work.spec, evaluate=replace(work.spec.evaluate, prompts=())))
    found = quality(silent, masked, "coupled")
    work.recorder.metric("ppl_coupled", 0, found.ppl)
    return found


def _kept_or(work: Work, name: str, measure: Callable[[], Measured]) -> Measured:
    """What was measured before the run was interrupted, or what `measure` finds now."""
    path = work.run_dir / CHECKPOINT / name
    there = kept(lambda _: _read(path), work.run_dir)
    if there is not None:
        return there
    found = measure()
    write_json(path, asdict(found))
    return found


def _read(path: Path) -> Measured:
    """Raises ArtifactError."""
    return read_record(path, Measured, "it is measured again")


def quality(work: Work, loaded: Loaded, side: str) -> Measured:
    """Perplexity, kept window by window under the name of its side, and the answers to the prompts."""
    asked, recorder = work.spec.evaluate, work.recorder
    found = _perplexity(work, loaded, side)
    samples = []
    for number, prompt in enumerate(asked.prompts):
        answer = generate(loaded.model, loaded.tokenizer, prompt, max_new_tokens=asked.max_new_tokens)
        samples.append({"text": answer.text, "tokens_per_second": answer.tokens_per_second})
        recorder.progress(number + 1, len(asked.prompts), "answers")
    return Measured(found, samples)


def _perplexity(work: Work, loaded: Loaded, side: str) -> Perplexity:
    asked = work.spec.evaluate
    text = evaluation_text(asked.text)
    ids = consecutive_windows(loaded.tokenizer, text, window=asked.window, tokens=asked.tokens)
    found = perplexity(loaded.model, ids, on_progress=work.recorder.counter("windows"))
    if math.isnan(found.nll):
        check_weights(loaded.model)
    keep_perplexity(work.run_dir, side, found)
    return found


def roomy(loaded: Loaded) -> bool:
    """Whether memory holds the model twice with as much again to work in."""
    size = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    if loaded.device.type == "cuda":
        free = torch.cuda.mem_get_info(loaded.device)[0]
    else:
        free = psutil.virtual_memory().available
    return free > 3 * size


def dense_copy(work: Work, loaded: Loaded, before: Measured) -> Loaded | None:
    """A copy of the dense model to time beside the pruned one, unless it was timed already."""
    if not work.spec.evaluate.efficiency or before.efficiency:
        return None
    return replace(loaded, model=copy.deepcopy(loaded.model))


def dense_again(work: Work, before: Measured) -> Loaded | None:
    """The dense model read anew, where training has changed the weights of the one that was loaded."""
    if not work.spec.evaluate.efficiency or before.efficiency:
        return None
    return load(**vars(work.spec.model))


def earlier(work: Work, cut: Measured) -> tuple[Measured | None, Measured]:
    """The dense model as the run measured it that made this pruned one, None if that cannot be compared.

    The pruned one gets its timings from there too: training leaves its size as it was, and there both
    were timed in turns.
    """
    source, found = Path(work.spec.model.source), source_metrics(work)
    try:
        extra = read_spec(source).extra
        samples = {sample["prompt"]: sample["dense"] for sample in read_samples(source)}
    except ArtifactError:
        return None, cut
    there = (extra.get("evaluation", {}).get("sha256"), found.get("ppl_window"), found.get("ppl_tokens"))
    now = (evaluation_text(work.spec.evaluate.text).sha256, cut.perplexity.window, cut.perplexity.tokens)
    if there != now or found.get("ppl_before") is None:
        return None, cut
    answers = [samples.get(prompt, {}) for prompt in work.spec.evaluate.prompts]
    keys = (*TIMINGS, *SPREADS.values())
    timings = [{key: found.get(f"{key}_{side}") for key in keys} for side in ("before", "after")]
    dense = Measured(_dense_earlier(work, found["ppl_before"], cut.perplexity), answers, timings[0])
    if any(timings[1][key] is None for key in TIMINGS):
        return dense, cut
    _keep_timings(work)
    return dense, replace(cut, efficiency=timings[1])


def _keep_timings(work: Work) -> None:
    """The times of the run before, round by round: this one's models are as large, so they are its own."""
    there = kept(read_efficiency, Path(work.spec.model.source)) or {}
    sides = {"dense": "dense", "recovered": "recovered" if "recovered" in there else "pruned"}
    keep_efficiency(work.run_dir, {now: there[then] for now, then in sides.items() if then in there})


def _dense_earlier(work: Work, ppl: float, cut: Perplexity) -> Perplexity:
    """The dense model's perplexity from the run before, kept by this one too; without windows if need be."""
    there = kept(read_perplexities, Path(work.spec.model.source)) or {}
    if "dense" not in there:
        return Perplexity(ppl, math.log(ppl), cut.tokens, cut.window)
    keep_perplexity(work.run_dir, "dense", there["dense"])
    return there["dense"]


def after(
    work: Work, pruned: Loaded, before: Measured | None, dense: Loaded | None, cut: Measured | None = None
) -> tuple[Measured | None, Measured]:
    """The final model, and the dense one with its timings: both timed in turns where memory allows.

    Args:
        before: the dense model, None where nobody measured it; dense: a copy of it to time.
        cut: the pruned model before it was trained, if it was.
    """
    final = "recovered" if cut else "pruned"
    work.recorder.stage("evaluate")
    found = quality(work, pruned, final)
    work.recorder.metric("ppl_after", 0, found.ppl)
    if cut and cut.efficiency and not work.spec.evaluate.int8:
        found = replace(found, efficiency=cut.efficiency)
    elif work.spec.evaluate.efficiency:
        timed = _efficiency(work, {**({"dense": dense} if dense else {}), final: pruned})
        found = replace(found, efficiency=timed[final])
        before = replace(before, efficiency=timed.get("dense", before.efficiency)) if before else None
    answers = {"dense": before, **({"pruned": cut} if cut else {}), final: found}
    samples = [
        {"prompt": prompt, **{name: one.samples[number] if one else {} for name, one in answers.items()}}
        for number, prompt in enumerate(work.spec.evaluate.prompts)
    ]
    write_json(work.run_dir / SAMPLES, samples)
    work.recorder.artifact(SAMPLES)
    return before, found


def _efficiency(work: Work, models: dict[str, Loaded]) -> dict[str, dict[str, Any]]:
    """Time models in turns; all of it is kept in `efficiency.json`.

    Returns:
        Model -> the `TIMINGS` and their spreads. With `int8`, each model's copy in 8 bits takes part, and
        stands under "int8" with its perplexity.
    """
    small = {name: _in_8_bits(one) for name, one in models.items()} if work.spec.evaluate.int8 else {}
    every = {**models, **{f"{name} int8": one for name, one in small.items()}}
    found: dict[str, Efficiency] = measure_efficiency(
        {name: loaded.model for name, loaded in every.items()}, on_progress=work.recorder.counter("timings")
    )
    keep_efficiency(work.run_dir, found)
    work.recorder.artifact(EFFICIENCY)
    keys = (*TIMINGS, *SPREADS.values())
    timed = {name: {key: getattr(one, key) for key in keys} for name, one in found.items()}
    for name, one in small.items():
        ppl = _perplexity(work, one, f"{name} int8")
        timed[name]["int8"] = {**timed[f"{name} int8"], "ppl": ppl.ppl, "ppl_stderr": ppl.stderr}
    return timed


def _in_8_bits(loaded: Loaded) -> Loaded:
    return replace(loaded, model=quantized(loaded.model))
