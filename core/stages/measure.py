"""What a run measures before and after the cut: perplexity, answers, efficiency."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from core.capture.statistics import check_weights
from core.devices.lending import spread_of
from core.devices.memory import free_memory
from core.errors import ArtifactError
from core.evaluate import dense as reference
from core.evaluate.efficiency import measure as measure_efficiency
from core.evaluate.generation import generate
from core.evaluate.perplexity import perplexity
from core.files import write_json
from core.methods import method_of
from core.models.load import Loaded, load
from core.models.windows import consecutive_windows, evaluation_windows
from core.results.efficiency import EFFICIENCY, SPREADS, Efficiency, keep_efficiency, read_efficiency
from core.results.measured import TIMINGS, Measured, read_measured, write_measured
from core.results.perplexity import Perplexity, keep_perplexities, read_perplexities
from core.runs.artifacts import CHECKPOINT, SAMPLES, read_samples, read_spec
from core.spec.evaluate import PROTOCOLS, WORKBENCH
from core.spec.run import RunSpec
from core.stages.work import State, Work, evaluation_of, kept, source_metrics
from core.surgery.int8 import int8_kind, quantized

BASELINE = "baseline.json"
#: The pruned model before it is trained, and what its numbers are called.
CUT = "pruned.json"


def baseline(state: State) -> None:
    """The dense model before anything is cut; kept in `checkpoint/` for a resumed run."""
    state.before = kept_or(state.work, BASELINE, lambda: _dense(state.work, state.loaded))
    refer(state.work, state.loaded)
    tell(state.work, "ppl_before", state.before)


def refer(work: Work, dense: Loaded) -> None:
    """Let the dense model read what is not kept of it, so that others can be compared with it."""
    for name in work.spec.evaluate.texts:
        ids = text_windows(dense.tokenizer, work.spec, name)
        if not reference.path_of(work.run_dir, ids).exists():
            listener = reference.listener(work.run_dir, dense.model, ids, reference.DENSE)
            counter = work.recorder.counter("windows read by the dense model")
            measured = perplexity(dense.model, ids, on_progress=counter, on_logits=listener)
            reference.heard(measured, listener, work.run_dir, ids)


def tell(work: Work, name: str, measured: Measured) -> None:
    """Say the perplexity of every text: of the first under its plain name, of others with their text's."""
    work.recorder.metric(name, 0, measured.ppl)
    for other in measured.others:
        work.recorder.metric(f"{name}.{other.text}", 0, other.ppl)


def alone(state: State) -> None:
    """One model by itself."""
    work, loaded = state.work, state.loaded
    measured = quality(work, loaded, "model")
    tell(work, "ppl", measured)
    timed = _efficiency(work, {"model": loaded})["model"] if work.spec.evaluate.efficiency else {}
    state.after = replace(measured, **timed)


def _dense(work: Work, loaded: Loaded) -> Measured:
    measured = quality(work, loaded, "dense")
    if work.spec.evaluate.efficiency and not roomy(loaded):
        measured = replace(measured, **_efficiency(work, {"dense": loaded})["dense"])
    return measured


def before_training(state: State) -> None:
    """The pruned model before it is trained; kept in `checkpoint/` for a resumed run."""
    work = state.work
    state.cut = kept_or(work, CUT, lambda: quality(work, state.loaded, "pruned"))
    tell(work, "ppl_pruned", state.cut)


def kept_or(work: Work, name: str, measure: Callable[[], Measured]) -> Measured:
    """What was measured before the run was interrupted, or what `measure` finds now."""
    path = work.run_dir / CHECKPOINT / name
    measured = kept(lambda _: read_measured(path), work.run_dir)
    if measured is None:
        measured = measure()
        write_measured(path, measured)
    return measured


def quality(work: Work, loaded: Loaded, side: str) -> Measured:
    """Perplexities, kept window by window under the name of their side, and the answers to the prompts."""
    asked, recorder = work.spec.evaluate, work.recorder
    first, *others = measure_texts(work, loaded, side)
    samples = []
    for number, prompt in enumerate(asked.prompts):
        answer = generate(loaded.model, loaded.tokenizer, prompt, max_new_tokens=asked.max_new_tokens)
        samples.append({"text": answer.text, "tokens_per_second": answer.tokens_per_second})
        recorder.progress(number + 1, len(asked.prompts), "answers")
    return Measured(first, samples, others=tuple(others))


def text_windows(tokenizer: Any, spec: RunSpec, name: str, tokens: int | None = None) -> Tensor:
    """What perplexity on a text is measured on, (windows, window).

    Args:
        tokens: how many to read instead of those asked for; at least a window.

    Raises:
        DataError: the first text has fewer tokens than asked for. Of others, what they have is read.
    """
    asked, text = spec.evaluate, evaluation_of(spec, name)
    most = asked.tokens or PROTOCOLS[asked.protocol].tokens
    if name == asked.text and tokens is None:
        return evaluation_windows(tokenizer, text, **asked.cutting())
    if tokens is not None:
        most = min(most or tokens, max(tokens, asked.window_length))
    stream = PROTOCOLS[asked.protocol].stream
    return consecutive_windows(tokenizer, text, window=asked.window_length, tokens=most, stream=stream)


def watched(spec: RunSpec, tokenizer: Any) -> dict[str, Tensor]:
    """The texts to follow while a model is trained: name -> their first windows, each (windows, window)."""
    asked = spec.evaluate
    if not asked.watch:
        return {}
    return {
        evaluation_of(spec, name).name: text_windows(tokenizer, spec, name, asked.watch)
        for name in asked.texts
    }


def measure_texts(work: Work, loaded: Loaded, side: str) -> tuple[Perplexity, ...]:
    """The perplexity on every text, in the order asked for, kept under the name of its side."""
    asked, measured = work.spec.evaluate, list[Perplexity]()
    for name in asked.texts:
        ids, text = text_windows(loaded.tokenizer, work.spec, name), evaluation_of(work.spec, name)
        listener = reference.listener(work.run_dir, loaded.model, ids, side)
        of_text = perplexity(
            loaded.model,
            ids,
            protocol=asked.protocol,
            text=text.name,
            on_progress=work.recorder.counter(f"windows of {text.name}"),
            on_logits=listener,
        )
        of_text = reference.heard(of_text, listener, work.run_dir, ids)
        if math.isnan(of_text.nll):
            check_weights(loaded.model)
        measured.append(replace(of_text, sha256=text.sha256))
    keep_perplexities(work.run_dir, side, measured)
    return tuple(measured)


def roomy(loaded: Loaded) -> bool:
    """Whether the dense model stays, to be timed in turns: if memory holds it twice with as much again.

    On CUDA it never does: there is no other work there to be fair about, and others need the memory. Nor does
    one whose weights rest elsewhere, since they found no room.
    """
    if loaded.device.type == "cuda" or spread_of(loaded.model):
        return False
    size = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    return free_memory(loaded.device) > 3 * size


def dense_to_time(state: State) -> Loaded | None:
    """A dense model to time beside the final one, None if that is not asked for or was done already.

    Training has changed the weights of the model at hand: then another is loaded.
    """
    spec, loaded = state.work.spec, state.loaded
    if not spec.evaluate.efficiency or (state.before and state.before.efficiency):
        return None
    return load(**vars(spec.model)) if method_of(spec) else replace(loaded, model=copy.deepcopy(loaded.model))


def earlier(state: State) -> None:
    """The dense model as the run measured it that made this pruned one, unless that cannot be compared.

    The pruned one gets its timings from there too: training leaves its size as it was, and there both
    were timed in turns.
    """
    work, cut = state.work, state.cut
    assert cut, "the pruned model is measured first"
    source, metrics = Path(work.spec.model.source), source_metrics(work)
    try:
        extra = read_spec(source).extra
        samples = {sample["prompt"]: sample["dense"] for sample in read_samples(source)}
    except ArtifactError:
        return
    text, read = evaluation_of(work.spec, work.spec.evaluate.text), cut.perplexity
    protocol, evaluated = metrics.get("ppl_protocol", WORKBENCH), extra.get("evaluation", {}).get("sha256")
    then = (evaluated, protocol, metrics.get("ppl_window"), metrics.get("ppl_tokens"))
    if then != (text.sha256, read.protocol, read.window, read.tokens) or metrics.get("ppl_before") is None:
        return
    answers = [samples.get(prompt, {}) for prompt in work.spec.evaluate.prompts]
    dense, pruned = (
        {key: metrics.get(f"{key}_{side}") for key in (*TIMINGS, *SPREADS.values())}
        for side in ("before", "after")
    )
    first, *others = _dense_earlier(work, metrics["ppl_before"], cut)
    state.before = Measured(first, answers, dense, tuple(others))
    if all(pruned[key] is not None for key in TIMINGS):
        _keep_timings(work)
        state.cut = replace(cut, efficiency=pruned)


def _keep_timings(work: Work) -> None:
    """The times of the run before, round by round: this one's models are as large, so they are its own."""
    times = kept(read_efficiency, Path(work.spec.model.source)) or {}
    sides = {"dense": "dense", "recovered": "recovered" if "recovered" in times else "pruned"}
    keep_efficiency(work.run_dir, {now: times[then] for now, then in sides.items() if then in times})


def _dense_earlier(work: Work, ppl: float, cut: Measured) -> tuple[Perplexity, ...]:
    """The dense model's perplexities from the run before, kept by this one too; without windows if need be.

    Of the texts after the first, those that the run before measured in the same windows.
    """
    perplexities = (kept(read_perplexities, Path(work.spec.model.source)) or {}).get("dense", ())
    if not perplexities:
        return (replace(cut.perplexity, ppl=ppl, nll=math.log(ppl), ids="", losses=()),)
    again = {other.ids for other in cut.others}
    dense = (perplexities[0], *(other for other in perplexities[1:] if other.ids in again))
    keep_perplexities(work.run_dir, "dense", dense)
    return dense


def after(state: State) -> None:
    """The final model, and the dense one with its timings: both timed in turns where memory allows."""
    work, before, cut = state.work, state.before, state.cut
    final = "recovered" if cut else "pruned"
    measured = quality(work, state.loaded, final)
    tell(work, "ppl_after", measured)
    if cut and cut.efficiency and not work.spec.evaluate.int8:
        measured = replace(measured, efficiency=cut.efficiency)
    elif work.spec.evaluate.efficiency:
        timed = _efficiency(work, {**({"dense": state.dense} if state.dense else {}), final: state.loaded})
        measured = replace(measured, **timed[final])
        before = replace(before, **timed.get("dense", {})) if before else None
    state.before, state.after, state.dense = before, measured, None
    answers = {"dense": before, **({"pruned": cut} if cut else {}), final: measured}
    samples = [
        {"prompt": prompt, **{side: of.samples[number] if of else {} for side, of in answers.items()}}
        for number, prompt in enumerate(work.spec.evaluate.prompts)
    ]
    write_json(work.run_dir / SAMPLES, samples)
    work.recorder.artifact(SAMPLES)


def _efficiency(work: Work, models: dict[str, Loaded]) -> dict[str, dict[str, Any]]:
    """Time models in turns; all of it is kept in `efficiency.json`.

    Returns:
        Model -> {"efficiency": the `TIMINGS` and their spreads}. With `int8`, each model's copy in 8 bits
        takes part, and stands in there under "int8", with which 8 bits those are; its perplexities are added,
        under that name, too.
    """
    small = _in_8_bits(work, models) if work.spec.evaluate.int8 else {}
    every = {**models, **{f"{name} int8": loaded for name, loaded in small.items()}}
    times: dict[str, Efficiency] = measure_efficiency(
        {name: loaded.model for name, loaded in every.items()}, on_progress=work.recorder.counter("timings")
    )
    keep_efficiency(work.run_dir, times)
    work.recorder.artifact(EFFICIENCY)
    keys = (*TIMINGS, *SPREADS.values())
    timed: dict[str, dict[str, Any]] = {
        name: {key: getattr(t, key) for key in keys} for name, t in times.items()
    }
    result: dict[str, dict[str, Any]] = {name: {"efficiency": timed[name]} for name in models}
    for name, loaded in small.items():
        timed[name]["int8"] = {**timed[f"{name} int8"], "kind": int8_kind(loaded.device.type)[0]}
        result[name]["int8"] = measure_texts(work, loaded, f"{name} int8")
    return result


def _in_8_bits(work: Work, models: dict[str, Loaded]) -> dict[str, Loaded]:
    """A copy of each in 8 bits; says so where those keep no outliers apart."""
    reasons = {reason for loaded in models.values() if (reason := int8_kind(loaded.device.type)[1])}
    for reason in reasons:
        work.recorder.message(f"8 bits are of the weights only, outliers are not kept apart: {reason}.")
    return {name: replace(loaded, model=quantized(loaded.model)) for name, loaded in models.items()}
