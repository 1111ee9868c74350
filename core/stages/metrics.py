"""`metrics.json`: what was measured and counted, under the names that every reader knows."""

from __future__ import annotations

from typing import Any

from core.files import write_json
from core.graph.discover import discover
from core.models.load import Loaded
from core.models.texts import calibration_title, evaluation_text
from core.plan.cost import cost
from core.plan.records import KV_BITS, Cost, PruningPlan
from core.results.efficiency import SPREADS
from core.runs.artifacts import METRICS
from core.stages.measure import TIMINGS, Measured
from core.stages.work import Work, reads_text, source_metrics


def pruning(
    work: Work, plan: PruningPlan, before: Measured | None, after: Measured, cut: Measured | None = None
) -> dict[str, Any]:
    """`metrics.json` of a run that cut or trained a model; None where something was not measured.

    `ppl_after` is always the final model's; where it was trained, `ppl_pruned` and `ppl_recovered` tell
    what that changed.
    """
    assert plan.before and plan.after, "a plan is allocated with its costs"
    found: dict[str, Any] = {}
    for side, costs, measured in (("before", plan.before, before), ("after", plan.after, after)):
        found |= {
            f"params_{side}": costs.params,
            f"macs_{side}": costs.macs_per_token,
            f"kv_bytes_per_token_{side}": costs.kv_bytes_per_token,
            f"ppl_{side}": measured.ppl if measured else None,
            f"ppl_stderr_{side}": measured.perplexity.stderr if measured else None,
        }
        for key in (*TIMINGS, *SPREADS.values()):
            found[f"{key}_{side}"] = measured.efficiency.get(key) if measured else None
        found |= _int8(measured.efficiency, f"_{side}") if measured else {}
    return {
        **found,
        **(_trained(cut, after) if cut else {}),
        "kv_bits": KV_BITS,
        "sparsity": plan.sparsity,
        "sparsity_total": plan.sparsity_total,
        **_read(work, after),
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
    }


def _calibrated_on(work: Work) -> str | None:
    """The text that chose what went; of a model that was pruned elsewhere, what that run says."""
    if work.spec.goal == "recover":
        return source_metrics(work).get("calibration_text")
    return calibration_title(work.spec.calibration.name) if reads_text(work.spec) else None


def evaluating(work: Work, loaded: Loaded, found: Measured) -> dict[str, Any]:
    """`metrics.json` of an evaluating run: one model, dense or pruned, and what was measured of it."""
    costs = _costs(loaded)
    return {
        "ppl": found.ppl,
        "ppl_stderr": found.perplexity.stderr,
        **_read(work, found),
        "params": sum(parameter.numel() for parameter in loaded.model.parameters()),
        "macs": costs.macs_per_token,
        "kv_bytes_per_token": costs.kv_bytes_per_token,
        "kv_bits": KV_BITS,
        **{key: found.efficiency.get(key) for key in (*TIMINGS, *SPREADS.values())},
        **_int8(found.efficiency),
    }


def _costs(loaded: Loaded) -> Cost:
    if loaded.plan is not None and loaded.plan.after is not None:
        return loaded.plan.after
    return cost(discover(loaded.model, name=loaded.name), {})


def write(work: Work, metrics: dict[str, Any]) -> None:
    """Write `metrics.json`."""
    write_json(work.run_dir / METRICS, metrics)
    work.recorder.artifact(METRICS)


def _int8(efficiency: dict[str, Any], side: str = "") -> dict[str, Any]:
    """What was measured of a model in 8 bits, as `metrics.json` names it; empty if it was not."""
    return {f"{key}_int8{side}": value for key, value in efficiency.get("int8", {}).items()}
