"""What a run measures before and after the cut: perplexity, answers, efficiency; and `metrics.json`."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import psutil
import torch

from core import artifacts
from core.artifacts import CHECKPOINT, METRICS, SAMPLES
from core.evaluate.efficiency import Efficiency
from core.evaluate.efficiency import measure as measure_efficiency
from core.evaluate.generation import generate
from core.evaluate.perplexity import perplexity
from core.graph.discover import discover
from core.models import Loaded
from core.plan import Cost, PruningPlan, cost
from core.stages import Work, kept, needs
from core.texts import calibration_text, consecutive_windows, evaluation_text

BASELINE = "baseline.json"


@dataclass(frozen=True)
class Measured:
    """One model, measured.

    Attributes:
        samples: {"text", "tokens_per_second"} per prompt.
        efficiency: {"latency_ms", "tokens_per_second", "memory_gib"}, empty where not measured.
    """

    ppl: float
    window: int
    tokens: int
    samples: list[dict[str, Any]] = field(default_factory=list)
    efficiency: dict[str, Any] = field(default_factory=dict)


def baseline(work: Work, loaded: Loaded) -> Measured:
    """The dense model before anything is cut; kept in `checkpoint/` for a resumed run."""
    work.recorder.stage("baseline")
    path = work.run_dir / CHECKPOINT / BASELINE
    raw = kept(lambda _: artifacts.read_json(path), work.run_dir)
    if isinstance(raw, dict) and set(raw) == set(Measured.__dataclass_fields__):
        found = Measured(**raw)
    else:
        found = quality(work, loaded)
        if work.spec.evaluate.efficiency and not roomy(loaded):
            found = replace(found, efficiency=_efficiency(work, {"dense": loaded})["dense"])
        artifacts.write_json(path, asdict(found))
    work.recorder.metric("ppl_before", 0, found.ppl)
    return found


def quality(work: Work, loaded: Loaded) -> Measured:
    """Perplexity and the answers to the prompts."""
    asked, recorder = work.spec.evaluate, work.recorder
    text = evaluation_text(asked.text)
    ids = consecutive_windows(loaded.tokenizer, text, window=asked.window, tokens=asked.tokens)
    found = perplexity(loaded.model, ids, on_progress=recorder.counter("windows"))
    samples = []
    for number, prompt in enumerate(asked.prompts):
        answer = generate(loaded.model, loaded.tokenizer, prompt, max_new_tokens=asked.max_new_tokens)
        samples.append({"text": answer.text, "tokens_per_second": answer.tokens_per_second})
        recorder.progress(number + 1, len(asked.prompts), "answers")
    return Measured(found.ppl, found.window, found.tokens, samples)


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


def after(work: Work, pruned: Loaded, before: Measured, dense: Loaded | None) -> tuple[Measured, Measured]:
    """The pruned model, and the dense one with its timings: both timed in turns where memory allows."""
    work.recorder.stage("evaluate")
    found = quality(work, pruned)
    work.recorder.metric("ppl_after", 0, found.ppl)
    if work.spec.evaluate.efficiency:
        timed = _efficiency(work, {**({"dense": dense} if dense else {}), "pruned": pruned})
        found = replace(found, efficiency=timed["pruned"])
        before = replace(before, efficiency=timed.get("dense", before.efficiency))
    pairs = zip(work.spec.evaluate.prompts, before.samples, found.samples, strict=True)
    samples = [{"prompt": prompt, "dense": one, "pruned": two} for prompt, one, two in pairs]
    artifacts.write_json(work.run_dir / SAMPLES, samples)
    work.recorder.artifact(SAMPLES)
    return before, found


def _efficiency(work: Work, models: dict[str, Loaded]) -> dict[str, dict[str, Any]]:
    found: dict[str, Efficiency] = measure_efficiency(
        {name: loaded.model for name, loaded in models.items()}, on_progress=work.recorder.counter("timings")
    )
    keys = ("latency_ms", "tokens_per_second", "memory_gib")
    return {name: {key: getattr(one, key) for key in keys} for name, one in found.items()}


def metrics(work: Work, plan: PruningPlan, before: Measured, after: Measured) -> dict[str, Any]:
    """`metrics.json` of a pruning run; None where something was not measured."""
    assert plan.before and plan.after, "a plan is allocated with its costs"
    spec = work.spec
    found: dict[str, Any] = {}
    for side, costs, measured in (("before", plan.before, before), ("after", plan.after, after)):
        found |= {
            f"params_{side}": costs.params,
            f"macs_{side}": costs.macs_per_token,
            f"kv_bytes_per_token_{side}": costs.kv_bytes_per_token,
            f"ppl_{side}": measured.ppl,
        }
        for key in ("latency_ms", "tokens_per_second", "memory_gib"):
            found[f"{key}_{side}"] = measured.efficiency.get(key)
    return {
        **found,
        "sparsity": plan.sparsity,
        "sparsity_total": plan.sparsity_total,
        "ppl_text": evaluation_text(spec.evaluate.text).name,
        "ppl_window": after.window,
        "ppl_tokens": after.tokens,
        "calibration_text": calibration_text(spec.calibration.name).name
        if needs([spec.prune.method])
        else None,
        "seconds": work.recorder.seconds,
    }


def alone(work: Work, loaded: Loaded) -> dict[str, Any]:
    """`metrics.json` of an evaluating run: one model, dense or pruned."""
    work.recorder.stage("evaluate")
    found = quality(work, loaded)
    work.recorder.metric("ppl", 0, found.ppl)
    costs = _costs(loaded)
    efficiency = _efficiency(work, {"model": loaded})["model"] if work.spec.evaluate.efficiency else {}
    return {
        "ppl": found.ppl,
        "ppl_text": evaluation_text(work.spec.evaluate.text).name,
        "ppl_window": found.window,
        "ppl_tokens": found.tokens,
        "tasks": {},
        "params": sum(parameter.numel() for parameter in loaded.model.parameters()),
        "macs": costs.macs_per_token,
        "kv_bytes_per_token": costs.kv_bytes_per_token,
        **{key: efficiency.get(key) for key in ("latency_ms", "tokens_per_second", "memory_gib")},
        "seconds": work.recorder.seconds,
    }


def _costs(loaded: Loaded) -> Cost:
    if loaded.plan is not None and loaded.plan.after is not None:
        return loaded.plan.after
    return cost(discover(loaded.model, name=loaded.name), {})


def write(work: Work, metrics: dict[str, Any]) -> None:
    """Write `metrics.json`."""
    artifacts.write_json(work.run_dir / METRICS, metrics)
    work.recorder.artifact(METRICS)
