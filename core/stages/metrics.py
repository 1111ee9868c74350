"""`metrics.json`: what was measured and counted, under the names that every reader knows."""

from __future__ import annotations

from typing import Any

from core.files import write_json
from core.graph.discover import discover
from core.models.load import Loaded
from core.models.texts import calibration_title, evaluation_text
from core.plan.cost import cost
from core.plan.records import KV_BITS, Cost
from core.results.efficiency import SPREADS
from core.results.measured import TIMINGS, Measured
from core.runs.artifacts import METRICS
from core.stages.work import State, Work, reads_text, source_metrics


def pruning(state: State) -> dict[str, Any]:
    """`metrics.json` of a run that cut or trained a model; None where something was not measured.

    `ppl_after` is always the final model's; where it was trained, `ppl_pruned` and `ppl_recovered` tell
    what that changed.
    """
    plan, work = state.plan, state.work
    assert plan.before and plan.after, "a plan is allocated with its costs"
    metrics: dict[str, Any] = {}
    for side, costs, measured in (("before", plan.before, state.before), ("after", plan.after, state.after)):
        metrics |= {
            f"params_{side}": costs.params,
            f"macs_{side}": costs.macs_per_token,
            f"kv_bytes_per_token_{side}": costs.kv_bytes_per_token,
            f"ppl_{side}": measured.ppl if measured else None,
            f"ppl_stderr_{side}": measured.perplexity.stderr if measured else None,
        }
        for key in (*TIMINGS, *SPREADS.values()):
            metrics[f"{key}_{side}"] = measured.efficiency.get(key) if measured else None
        metrics |= _int8(measured.efficiency, f"_{side}") if measured else {}
    return {
        **metrics,
        **(_trained(state.cut, state.after) if state.cut else {}),
        "kv_bits": KV_BITS,
        "sparsity": plan.sparsity,
        "sparsity_total": plan.sparsity_total,
        **_read(work, state.after),
        "calibration_text": _calibrated_on(work),
        "seconds": work.recorder.seconds,
    }


def _trained(cut: Measured, after: Measured) -> dict[str, Any]:
    """The perplexity before and after the training."""
    return {
        "ppl_pruned": cut.ppl,
        "ppl_stderr_pruned": cut.perplexity.stderr,
        "ppl_recovered": after.ppl,
        "ppl_stderr_recovered": after.perplexity.stderr,
    }


def _read(work: Work, measured: Measured) -> dict[str, Any]:
    """What every perplexity of the run was measured on; the standard errors are over these windows."""
    return {
        "ppl_text": evaluation_text(work.spec.evaluate.text).name,
        "ppl_window": measured.perplexity.window,
        "ppl_tokens": measured.perplexity.tokens,
        "ppl_windows": measured.perplexity.windows,
        "ppl_scored": measured.perplexity.scored,
        "ppl_protocol": measured.perplexity.protocol,
    }


def _calibrated_on(work: Work) -> str | None:
    """The text that chose what went; of a model that was pruned elsewhere, what that run says."""
    if work.spec.goal == "recover":
        return source_metrics(work).get("calibration_text")
    return calibration_title(work.spec.calibration.name) if reads_text(work.spec) else None


def evaluating(state: State) -> dict[str, Any]:
    """`metrics.json` of an evaluating run: one model, dense or pruned, and what was measured of it."""
    costs, measured = _costs(state.loaded), state.after
    return {
        "tasks": {},
        "ppl": measured.ppl,
        "ppl_stderr": measured.perplexity.stderr,
        **_read(state.work, measured),
        "params": sum(parameter.numel() for parameter in state.loaded.model.parameters()),
        "macs": costs.macs_per_token,
        "kv_bytes_per_token": costs.kv_bytes_per_token,
        "kv_bits": KV_BITS,
        **{key: measured.efficiency.get(key) for key in (*TIMINGS, *SPREADS.values())},
        **_int8(measured.efficiency),
    }


def _costs(loaded: Loaded) -> Cost:
    if loaded.plan is not None and loaded.plan.after is not None:
        return loaded.plan.after
    return cost(discover(loaded.model, name=loaded.name), {})


def write(state: State) -> None:
    """Write `metrics.json`, where the stages have found something that stands in it."""
    if state.metrics:
        write_json(state.work.run_dir / METRICS, {**state.metrics, "seconds": state.work.recorder.seconds})
        state.work.recorder.artifact(METRICS)


def _int8(efficiency: dict[str, Any], side: str = "") -> dict[str, Any]:
    """What was measured of a model in 8 bits, as `metrics.json` names it; empty if it was not."""
    return {f"{key}_int8{side}": value for key, value in efficiency.get("int8", {}).items()}
