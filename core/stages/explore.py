"""What an exploring run finds out about a model beside its scores: similar heads, sensitive layers."""

from __future__ import annotations

from typing import Any

from core.capture.divergence import similarity as measure_similarity
from core.evaluate.sensitivity import scan
from core.evaluate.sensitivity_points import curve_of
from core.models.texts import title_of
from core.models.windows import consecutive_windows
from core.results.sensitivity import SENSITIVITY, Sensitivity, read_sensitivity, write_sensitivity
from core.results.similarity import SIMILARITY, read_similarity, similar_heads, write_similarity
from core.runs.artifacts import CHECKPOINT
from core.search.kept import Kept
from core.spec.evaluate import PROTOCOLS
from core.stages.steps import windows
from core.stages.work import State, add_facts, evaluation_of, kept

#: Points of a scan that is not through.
POINTS = "sensitivity-points.json"


def similarity(state: State) -> None:
    """How alike the heads of each layer attend, and which say the same at `tau`."""
    work = state.work
    measured = kept(read_similarity, work.run_dir)
    if measured is None:
        read, text = windows(work, state.loaded)
        add_facts(work, calibration=text)
        measured = measure_similarity(
            state.loaded.model,
            state.graph,
            read,
            text=title_of(work.spec.calibration.name),
            on_progress=work.recorder.counter("windows"),
        )
        write_similarity(work.run_dir, measured)
    work.recorder.artifact(SIMILARITY)
    tau = work.spec.explore.tau
    state.metrics |= {"tau": tau, "similar_heads": similar_heads(measured, tau)}


def sensitivity(state: State) -> None:
    """Perplexity when only one layer's attention or FFN is pruned; what was measured is kept for a resume."""
    run_dir = state.work.run_dir
    if kept(read_sensitivity, run_dir) is None:
        points = Kept(run_dir / CHECKPOINT / POINTS, dict[str, Any])
        try:
            measured = _scanned(state, points)
        finally:
            points.save()
        write_sensitivity(run_dir, measured)
        points.remove()
    state.work.recorder.artifact(SENSITIVITY)


def _scanned(state: State, points: Kept[dict[str, Any]]) -> Sensitivity:
    """The whole scan, with the points that were measured before."""
    recorder, asked, read = state.work.recorder, state.work.spec.explore, state.work.spec.evaluate
    text, stream = evaluation_of(state.work.spec, read.text), PROTOCOLS[read.protocol].stream
    tokens = asked.sensitivity_tokens
    length = min(read.window_length, tokens)

    def tell(point: dict[str, Any]) -> None:
        recorder.metric(curve_of(point), point["layer"] or 0, point["ppl"])

    return scan(
        state.loaded.model,
        state.graph,
        state.scores[asked.sensitivity_criterion],
        consecutive_windows(state.loaded.tokenizer, text, window=length, tokens=tokens, stream=stream),
        ratios=asked.sensitivity_ratios,
        kinds=asked.sensitivity_kinds,
        layers=None,
        criterion=asked.sensitivity_criterion,
        text=text.name,
        protocol=read.protocol,
        on_progress=recorder.counter("points"),
        on_point=tell,
        keep=points,
    )
