"""Measure many ways to prune one model: loaded once, and scored once for all points that share a pass."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from torch import Tensor

from core.errors import PruneError, StopRequested, StorageError
from core.evaluate.perplexity import perplexity
from core.files import write_text
from core.graph.records import Graph
from core.models.load import Loaded
from core.models.texts import calibration_title, consecutive_windows, evaluation_text
from core.plan.allocation import allocate
from core.plan.cost import cost
from core.plan.records import PruningPlan
from core.recover.reconstruct import reconstructed
from core.results.noise import perplexity_difference
from core.results.perplexity import Perplexity, keep_perplexity, read_perplexities
from core.results.scores import Scores
from core.results.sweep import SWEEP, Point, Sweep, planned, read_sweep, run_of, write_sweep
from core.runs.artifacts import CHECKPOINT, SPEC
from core.spec.run import RunSpec
from core.stages.reconstruct import recounted, rescoring
from core.stages.steps import windows as calibration_windows
from core.stages.work import Work, kept
from core.surgery.masks import masked

#: Plans that were measured, as refitted, and their perplexities: criteria without data find the same plan
#: for every text.
Known = dict[Any, tuple[PruningPlan, Perplexity]]


def windows_of(work: Work, loaded: Loaded) -> Tensor:
    """Evaluation windows, (windows, window)."""
    asked = work.spec.evaluate
    text = evaluation_text(asked.text)
    return consecutive_windows(loaded.tokenizer, text, window=asked.window, tokens=asked.tokens)


def begin(work: Work, loaded: Loaded, graph: Graph, windows: Tensor) -> Sweep:
    """The sweep as far as it is done already, or the dense model measured and no point yet."""
    work.recorder.stage("baseline")
    found = kept(read_sweep, work.run_dir)
    if found is None:
        dense = perplexity(loaded.model, windows, on_progress=work.recorder.counter("windows"))
        keep_perplexity(work.run_dir, "dense", dense)
        whole = cost(graph, {})
        spec = work.spec
        found = Sweep(
            dense.ppl, whole.params, whole.macs_per_token, evaluation_text(spec.evaluate.text).name,
            dense.window, dense.tokens, calibration_title(spec.calibration.name), len(planned(spec)),
            ppl_stderr=dense.stderr,
        )  # fmt: skip
        write_sweep(work.run_dir, found)
    work.recorder.metric("ppl_before", 0, found.ppl)
    work.recorder.artifact(SWEEP)
    return found


def passes(work: Work, found: Sweep) -> Iterator[tuple[Work, list[Point]]]:
    """Points that are left, by the capture pass they share; its scores are kept in a folder of its own."""
    together: dict[tuple[int, int], list[Point]] = {}
    for point in planned(work.spec):
        if point.key not in found.done:
            together.setdefault((point.seed, point.samples), []).append(point)
    for (seed, samples), points in together.items():
        spec = replace(work.spec, seed=seed, calibration=replace(work.spec.calibration, samples=samples))
        folder = work.run_dir / CHECKPOINT / f"seed{seed}-samples{samples}"
        write_text(folder / SPEC, spec.to_json())  # a pass records in it which text it read
        yield replace(work, spec=spec, run_dir=folder), points


def measure(
    work: Work,
    loaded: Loaded,
    graph: Graph,
    scores: Scores,
    windows: Tensor,
    found: Sweep,
    points: list[Point],
    known: Known,
) -> Sweep:
    """Measure these points and write down each at once. Raises StopRequested and StorageError."""
    work.recorder.stage("sweep")
    dense = (kept(read_perplexities, work.run_dir) or {}).get("dense")
    for point in points:
        work.recorder.progress(len(found.points), found.planned, "points")
        own = replace(work, spec=run_of(work.spec, point))  # its seed and windows are the point's
        measured = _measured(own, loaded, graph, scores, windows, point, known, dense)
        found = replace(found, points=(*found.points, measured))
        write_sweep(work.run_dir, found)
    work.recorder.progress(len(found.points), found.planned, "points")
    return found


def _measured(
    work: Work,
    loaded: Loaded,
    graph: Graph,
    scores: Scores,
    windows: Tensor,
    point: Point,
    known: Known,
    dense: Perplexity | None,
) -> Point:
    """One point, whose run `work.spec` is; what cannot be pruned so says why, and the sweep goes on."""
    began = time.monotonic()
    try:
        plan = _plan(work.spec, graph, scores)
        plan, measured = _perplexity(work, loaded, graph, plan, windows, known, point)
    except (StopRequested, StorageError):
        raise
    except PruneError as error:
        return replace(point, error=str(error), seconds=time.monotonic() - began)
    assert plan.after, "a plan is allocated with its costs"
    return replace(
        point,
        sparsity=plan.sparsity,
        sparsity_total=plan.sparsity_total,
        params=plan.after.params,
        macs=plan.after.macs_per_token,
        ppl=measured.ppl,
        seconds=time.monotonic() - began,
        ppl_stderr=measured.stderr,
        change_stderr=perplexity_difference(dense, measured).noise if dense else None,
    )


def _plan(spec: RunSpec, graph: Graph, scores: Scores) -> PruningPlan:
    asked = spec.prune
    return allocate(graph, scores[asked.method], **asked.allocation(), method=asked.method, model=graph.model)


def _perplexity(
    work: Work,
    loaded: Loaded,
    graph: Graph,
    plan: PruningPlan,
    windows: Tensor,
    known: Known,
    point: Point,
) -> tuple[PruningPlan, Perplexity]:
    """The plan as it is after refitting and its perplexity, under masks: they give what surgery gives."""
    how = point.reconstruct
    text = () if how == "none" else (how, point.seed, point.samples, point.method)
    key = (tuple(sorted(plan.removed.items())), *text)
    if key not in known:
        read = calibration_windows(work, loaded) if text else None
        again = rescoring(work.spec)
        refitted = (
            nullcontext()
            if read is None
            else reconstructed(loaded.model, graph, plan, read, how=how, rescoring=again)
        )
        with refitted as done:
            plan = recounted(graph, plan, done.removed) if done else plan
            with masked(loaded.model, graph, plan.removed):
                found = perplexity(loaded.model, windows, on_progress=lambda *_: work.recorder.check_stop())
        known[key] = plan, found
    return known[key]
