"""`metrics.json`: what was measured and counted, under the names that every reader knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from core.files import write_json
from core.models.again import groups_of
from core.models.load import Loaded
from core.models.texts import title_of
from core.plan.budgets import Met, met
from core.plan.cost import cost
from core.plan.records import KV_BITS, Cost
from core.results.efficiency import SPREADS
from core.results.measured import TIMINGS, Measured
from core.results.perplexity import Perplexity, by_text, on_text
from core.results.quantities import BUDGETS, OF_TEXTS
from core.runs.artifacts import METRICS
from core.runs.timings import read_reached
from core.spec.budget import answer, latency_of
from core.stages.work import State, Work, ablates, reads_text, source_metrics


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
        }
        for key in (*TIMINGS, *SPREADS.values()):
            metrics[f"{key}_{side}"] = measured.efficiency.get(key) if measured else None
        metrics |= _int8(measured.efficiency, f"_{side}") if measured else {}
    calibrated = _calibrated(work)
    models = {"_before": state.before, "_after": state.after}
    models |= {"_pruned": state.cut, "_recovered": state.after} if state.cut else {}
    beside = {
        "_coupled": state.coupled,
        "_coupled_recovered": state.coupled_recovered,
        "_control": state.control,
    }
    models |= {ending: model for ending, model in beside.items() if model}
    return {
        **metrics,
        "kv_bits": KV_BITS,
        **_answers(state),
        "sparsity": plan.sparsity,
        "sparsity_total": plan.sparsity_total,
        **_against_base(state),
        **_perplexities(models, state.after, {**calibrated, "seed": work.spec.seed}),
        "calibration_text": calibrated["calibration_text"],
        "seconds": work.recorder.seconds,
    }


def _answers(state: State) -> dict[str, Any]:
    """`budgets`: what is left of every quantity that a budget was given of."""
    if not (target := state.work.spec.prune.target):
        return {}
    budgets = {each.asked: each for each in met(state.graph, target, state.plan, state.timings)}
    budget, reached = latency_of(target), read_reached(state.work.run_dir)
    if budget and reached:  # measured, no longer predicted
        words = answer(budget, reached.measured, reached.was)
        budgets[budget.text] = Met(budget.text, reached.measured, reached.was, words)
    return {BUDGETS: [asdict(each) for each in budgets.values()]}


def _against_base(state: State) -> dict[str, Any]:
    """What all cuts together took of the first base, where the model that was given was pruned before."""
    whole = state.loaded.plan
    if ablates(state.work.spec) or whole is None or not whole.before or whole.before == state.plan.before:
        return {}
    return {
        "base": whole.model,
        "params_base": whole.before.params,
        "sparsity_base": whole.sparsity,
        "sparsity_total_base": whole.sparsity_total,
    }


def _perplexities(
    models: Mapping[str, Measured | None], final: Measured, about: Mapping[str, Any]
) -> dict[str, Any]:
    """`perplexities`: a row per text with all that its numbers depend on; and the first row's by themselves.

    Args:
        models: how the names of a model's numbers end -> the model; `final` was measured on every text.
        about: what else stands in every row.
    """
    rows = []
    for number, on in enumerate(final.perplexities):
        row: dict[str, Any] = {
            "ppl_text": on.text,
            "ppl_sha256": on.sha256,
            "ppl_window": on.window,
            "ppl_tokens": on.tokens,
            "ppl_windows": on.windows,
            "ppl_scored": on.scored,
            "ppl_protocol": on.protocol,
            **about,
        }
        for ending, model in models.items():
            of_text = on_text(model.perplexities, number, on.sha256) if model else None
            row |= _with_error(f"ppl{{}}{ending}", of_text)
            if of_text and of_text.kl is not None:
                row |= {f"kl{ending}": of_text.kl, f"kl_stderr{ending}": of_text.kl_stderr}
            if model and model.int8 and ending in ("", "_before", "_after"):
                row |= _with_error(f"ppl{{}}_int8{ending}", model.int8[number])
        rows.append(row)
    return {**{name: rows[0][name] for name in rows[0] if name.startswith(OF_TEXTS)}, "perplexities": rows}


def _with_error(name: str, measured: Perplexity | None) -> dict[str, float | None]:
    value, error = (measured.ppl, measured.stderr) if measured else (None, None)
    return {name.format(""): value, name.format("_stderr"): error}


def _calibrated(work: Work) -> dict[str, Any]:
    """The text that chose what went, its windows and their length; of another run's plan as that says."""
    names = ("calibration_text", "calibration_windows", "calibration_length")
    data = work.spec.calibration
    values: tuple[Any, ...] = (None, None, None)
    if work.spec.goal != "prune":
        row = next(iter(by_text(source_metrics(work))), {})
        values = tuple(row.get(name) for name in names)
    elif reads_text(work.spec):
        values = (title_of(data.name), data.samples, data.length)
    return dict(zip(names, values, strict=True))


def evaluating(state: State) -> dict[str, Any]:
    """`metrics.json` of an evaluating run: one model, dense or pruned, and what was measured of it."""
    costs, measured = _costs(state.loaded), state.after
    return {
        "tasks": {},
        **_perplexities({"": measured}, measured, {**_calibrated(state.work), "seed": state.work.spec.seed}),
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
    return cost(groups_of(loaded), {})


def write(state: State) -> None:
    """Write `metrics.json`, where the stages have found something that stands in it; log what was held."""
    if state.foreseen is not None and state.peak_gib:
        predicted = f"{state.foreseen.gib:.2f} GiB were predicted"
        state.work.recorder.log(f"The run held {state.peak_gib:.2f} GiB of memory at most; {predicted}")
    if state.metrics:
        run = {"seconds": state.work.recorder.seconds, "run_memory_gib": state.peak_gib}
        if state.foreseen is not None:
            run["run_memory_predicted_gib"] = state.foreseen.gib
        write_json(state.work.run_dir / METRICS, {**state.metrics, **run})
        state.work.recorder.artifact(METRICS)


def _int8(efficiency: dict[str, Any], side: str = "") -> dict[str, Any]:
    """What was measured of a model in 8 bits, as `metrics.json` names it; empty if it was not."""
    return {f"{key}_int8{side}": value for key, value in efficiency.get("int8", {}).items()}
