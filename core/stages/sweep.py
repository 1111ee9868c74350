"""Measure many ways to prune one model: loaded once, and scored once for all points that share a pass."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from core.criteria.registry import check_scopes
from core.errors import NotPrunableError, PruneError, StopRequested, StorageError
from core.evaluate import dense as reference
from core.evaluate.perplexity import perplexity
from core.models.texts import title_of
from core.plan.allocation import allocate
from core.plan.cost import cost
from core.plan.records import PruningPlan
from core.recover.fitting import Reconstruction
from core.recover.reconstruct import reconstructed
from core.results.noise import perplexity_difference
from core.results.perplexity import Perplexity, read_perplexities
from core.results.scores import ranked_by
from core.results.sweep import SWEEP, Other, OtherText, Point, Sweep, planned, read_sweep, run_of, write_sweep
from core.runs.artifacts import CHECKPOINT
from core.spec.choices import SEARCHED
from core.stages.blocks import worth_of
from core.stages.measure import measure_texts, text_windows
from core.stages.reconstruct import recounted, rescoring
from core.stages.search import searched
from core.stages.steps import recovery_windows
from core.stages.steps import windows as calibration_windows
from core.stages.work import State, Sweeping, Work, kept
from core.surgery.masks import masked


def baseline(state: State) -> None:
    """The sweep as far as it is done already, or the dense model measured and no point yet."""
    work, spec, asked = state.work, state.work.spec, state.work.spec.evaluate
    record = kept(read_sweep, work.run_dir)
    if record is None:
        dense = measure_texts(work, state.loaded, "dense")
        first, *others = (
            OtherText(of.text, of.sha256, of.window, of.tokens, of.protocol, of.ppl, of.stderr)
            for of in dense
        )
        whole = cost(state.graph, {})
        record = Sweep(
            params=whole.params, macs=whole.macs_per_token, planned=len(planned(spec)),
            calibration=title_of(spec.calibration.name), **asdict(first), others=tuple(others),
        )  # fmt: skip
        write_sweep(work.run_dir, record)
    work.recorder.metric("ppl_before", 0, record.ppl)
    for other in record.others:
        work.recorder.metric(f"ppl_before.{other.text}", 0, other.ppl)
    work.recorder.artifact(SWEEP)
    names = asked.texts[: len(record.texts)]  # a sweep of release 0.1 goes on as it began, on one text
    state.sweep = Sweeping(tuple(text_windows(state.loaded.tokenizer, spec, name) for name in names), record)


def passes(state: State) -> Iterator[State]:
    """A state for every capture pass that points are left of; its scores are kept in a folder of its own."""
    spec = state.work.spec
    for seed, samples in dict.fromkeys((point.seed, point.samples) for point in _left(state)):
        own = copy.copy(state)
        own.work = replace(
            state.work, spec=replace(spec, seed=seed, calibration=replace(spec.calibration, samples=samples))
        )
        own.folder = state.folder / CHECKPOINT / f"seed{seed}-samples{samples}"
        yield own


def _left(state: State) -> list[Point]:
    """The points that are not measured yet."""
    done = state.sweep.record.done
    return [point for point in planned(state.work.spec) if point.key not in done]


def measure(state: State) -> None:
    """Measure the points of a pass and write down each at once. Raises StopRequested and StorageError."""
    work, sweep = state.work, state.sweep
    dense = (kept(read_perplexities, work.run_dir) or {}).get("dense", ())
    of_pass = (work.spec.seed, work.spec.calibration.samples)
    for point in _left(state):
        if (point.seed, point.samples) == of_pass:
            work.recorder.progress(len(sweep.record.points), sweep.record.planned, "points")
            measured = _measured(replace(work, spec=run_of(work.spec, point)), state, point, dense)
            sweep.record = replace(sweep.record, points=(*sweep.record.points, measured))
            write_sweep(work.run_dir, sweep.record)
    work.recorder.progress(len(sweep.record.points), sweep.record.planned, "points")


def _measured(work: Work, state: State, point: Point, dense: Sequence[Perplexity]) -> Point:
    """One point, whose run `work.spec` is; what cannot be pruned so says why, and the sweep goes on."""
    began = time.monotonic()
    try:
        plan, measured = _perplexities(work, state, _plan(work, state), point)
    except (StopRequested, StorageError):
        raise
    except PruneError as error:
        return replace(point, error=str(error), seconds=time.monotonic() - began)
    assert plan.after, "a plan is allocated with its costs"
    befores = dense if len(dense) == len(measured) else [None] * len(measured)
    of_texts = [
        Other(
            now.ppl,
            now.stderr,
            perplexity_difference(then, now).noise if then else None,
            now.kl,
            now.kl_stderr,
        )
        for then, now in zip(befores, measured, strict=True)
    ]
    return replace(
        point,
        sparsity=plan.sparsity,
        sparsity_total=plan.sparsity_total,
        params=plan.after.params,
        macs=plan.after.macs_per_token,
        seconds=time.monotonic() - began,
        **asdict(of_texts[0]),
        others=tuple(of_texts[1:]),
    )


def _plan(work: Work, state: State) -> PruningPlan:
    asked, graph, scores = work.spec.prune, state.graph, state.scores
    check_scopes((asked.method,), (asked.scope,))
    if asked.scope == SEARCHED:
        return searched(work, state, scores)
    ranked = scores[ranked_by(asked.method, asked.scope)]
    arguments = asked.allocation() | {"method": asked.method, "model": graph.model}
    if asked.drop:
        arguments["worth"] = worth_of(work, state, scores).worth
        alone = allocate(graph, ranked, **arguments | {"sparsity": 0.0}).sparsity
        if alone > asked.sparsity:
            raise NotPrunableError(
                f"{asked.drop} alone takes {alone:.1%} of the parameters in scope, more than the "
                f"{asked.sparsity:.1%} of this point; ask for more, or drop fewer."
            )
    return allocate(graph, ranked, **arguments)


def _perplexities(
    work: Work, state: State, plan: PruningPlan, point: Point
) -> tuple[PruningPlan, tuple[Perplexity, ...]]:
    """The plan as it is after refitting and its perplexities, under masks: they give what surgery gives."""
    how, model = point.reconstruct, state.loaded.model
    text = () if how == "none" else (how, point.seed, point.samples, point.method, point.scope)
    key = (tuple(sorted(plan.removed.items())), *text)
    if key not in state.sweep.measured:
        with _refitted(work, state, plan, how) as refitted:
            plan = recounted(state.graph, plan, refitted.removed) if refitted else plan
            with masked(model, state.graph, plan.removed):
                measured = tuple(_of_text(work, model, windows) for windows in state.sweep.windows)
        state.sweep.measured[key] = plan, measured
    return state.sweep.measured[key]


def _of_text(work: Work, model: Any, windows: Tensor) -> Perplexity:
    """Perplexity on some windows, and how far from the dense model that is."""
    listener = reference.listener(work.run_dir, model, windows, "pruned")
    measured = perplexity(
        model,
        windows,
        protocol=work.spec.evaluate.protocol,
        on_progress=lambda *_: work.recorder.check_stop(),
        on_logits=listener,
    )
    return reference.heard(measured, listener, work.run_dir, windows)


def _refitted(
    work: Work, state: State, plan: PruningPlan, how: str
) -> AbstractContextManager[Reconstruction | None]:
    """The model refitted for the plan, until the block ends."""
    if how == "none":
        return nullcontext()
    read, _ = calibration_windows(work, state.loaded)
    again = rescoring(work.spec)
    recovery = recovery_windows(work, state.loaded) if how == "pre_pruning" else None
    return reconstructed(
        state.loaded.model, state.graph, plan, read, how=how, rescoring=again, recovery=recovery
    )
