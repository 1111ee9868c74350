"""What the readers of the day say of a run and of a model, as plain JSON: what they said once is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.export import from_pretrained
from core.files import read_json
from core.models.saved import load
from core.results.efficiency import read_efficiency
from core.results.masks import read_masks
from core.results.perplexity import read_perplexities
from core.results.scores import read_scores
from core.results.sensitivity import read_sensitivity
from core.results.similarity import read_similarity
from core.results.sweep import Point, read_sweep
from core.results.tasks import read_benchmarks
from core.results.widths import read_widths
from core.runs.artifacts import read_graph, read_plan
from core.runs.records import full_record
from core.runs.watch import list_runs

#: The folder of the runs, beside the models and texts they name.
RUNS = "past"
#: Runs, by name, whose model was kept.
MODELS = ("ragged", "refitted", "recovered", "trained", "fused")
#: What every model reads: "Anna sells", a token a character.
IDS = (38, 83, 83, 70, 5, 88, 74, 81, 81, 88)
#: Logits of the last position that are kept.
LOGITS = 12


def run_of(runs_dir: Path, name: str) -> Path:
    """The run with this name."""
    found = [path for path in list_runs(runs_dir) if full_record(path)["name"] == name]
    assert len(found) == 1, (name, found)
    return found[0]


def describe(run_dir: Path) -> dict[str, Any]:
    """The record of a run, and what the reader of each of its files says."""
    record = full_record(run_dir)
    for key in ("run_dir", "spec", "log"):  # where it lies now; the others are held against their files
        del record[key]
    files = {name: read(run_dir) for name, read in READERS.items() if (run_dir / name).exists()}
    return {"record": record, "files": rounded(files)}


def describe_model(folder: Path) -> dict[str, Any]:
    """What a saved model computes in float32, and what was saved with it."""
    saved, tokenizer, plan = load(folder)
    model = from_pretrained(folder, dtype=torch.float32)
    assert tokenizer("Anna sells")["input_ids"] == list(IDS)
    return {
        "dtype": str(saved.dtype),
        "parameters": sum(value.numel() for value in model.parameters()),
        "removed": {group: list(units) for group, units in plan.removed.items()},
        "logits": logits_of(model),
    }


def logits_of(model: Any) -> list[float]:
    """The first logits of the last position."""
    with torch.no_grad():
        logits = model(torch.tensor([IDS]), use_cache=False).logits[0, -1, :LOGITS]
    return [round(value, 5) for value in logits.tolist()]


def rounded(value: Any) -> Any:
    """Floats to six digits; everything as JSON gives it back."""
    if isinstance(value, dict):
        return {str(key): rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _plan(run_dir: Path) -> dict[str, Any]:
    plan = read_plan(run_dir)
    assert plan.before and plan.after
    return {
        "model": plan.model, "method": plan.method, "scope": plan.scope, "target": plan.target,
        "kinds": plan.kinds, "layers": plan.layers, "removed": plan.removed, "biases": plan.biases,
        "sparsity": plan.sparsity, "sparsity_total": plan.sparsity_total,
        "params": [plan.before.params, plan.after.params],
        "macs": [plan.before.macs_per_token, plan.after.macs_per_token],
    }  # fmt: skip


def _graph(run_dir: Path) -> dict[str, Any]:
    graph = read_graph(run_dir)
    return {
        "family": graph.family,
        "parameters": sum(int(np.prod(one.shape)) for one in graph.parameters.values()),
        "groups": {group.id: [group.kind, group.units, len(group.members)] for group in graph.groups},
        "heads": [[one.heads, one.kv_heads] for one in graph.attentions],
    }


def _similarity(run_dir: Path) -> dict[str, Any]:
    found = read_similarity(run_dir)
    return {"layers": found.layers, "tokens": found.tokens, "text": found.text, **_array(found.divergence)}


def _scores(run_dir: Path) -> dict[str, Any]:
    scores = read_scores(run_dir)
    return {name: {group: _array(one) for group, one in by.items()} for name, by in scores.items()}


def _sensitivity(run_dir: Path) -> dict[str, Any]:
    found = read_sensitivity(run_dir)
    return {"ppl": found.baseline_ppl, "criterion": found.criterion, "points": found.points}


def _masks(run_dir: Path) -> dict[str, Any]:
    state = read_masks(run_dir)
    factors = {kind: _array(one) for kind, one in state.factors.items()}
    stays = {kind: int(one.sum()) for kind, one in state.stays.items()}
    return {"step": state.step, "steps": state.steps, "factors": factors, "stays": stays}


def _sweep(run_dir: Path) -> dict[str, Any]:
    sweep = read_sweep(run_dir)
    points = [[*_key(point), point.params, point.ppl, point.ppl_stderr] for point in sweep.points]
    return {"ppl": sweep.ppl, "points": points, "front": [_key(point) for point in sweep.front()]}


def _key(point: Point) -> list[Any]:
    """Its place on the axes that there were then: no blocks went."""
    assert not point.drop
    return list(point.key[:6])


def _benchmarks(run_dir: Path) -> dict[str, Any]:
    return {
        side: {
            name: {
                "value": one.value, "stderr": one.stderr, "n": one.n, "version": one.version,
                "samples": [[sample.question, sample.given, sample.right] for sample in one.samples],
            }
            for name, one in benchmarks.tasks.items()
        }
        for side, benchmarks in read_benchmarks(run_dir).items()
    }  # fmt: skip


def _perplexities(run_dir: Path) -> dict[str, Any]:
    return {side: [one.ppl, one.stderr, one.windows] for side, (one,) in read_perplexities(run_dir).items()}


def _efficiency(run_dir: Path) -> dict[str, Any]:
    return {
        side: [one.latency_ms, one.tokens_per_second, one.kv_bytes_per_token, len(one.timings)]
        for side, one in read_efficiency(run_dir).items()
    }


def _widths(run_dir: Path) -> dict[str, Any]:
    found = read_widths(run_dir)
    return {"layers": found.layers, "dense": found.dense, "hidden": found.hidden}


def _samples(run_dir: Path) -> list[Any]:
    found = read_json(run_dir / "samples.json")
    return [
        {side: one["text"] if isinstance(one, dict) else one for side, one in sample.items()}
        for sample in found
    ]


def _array(values: Any) -> dict[str, Any]:
    return {"shape": list(values.shape), "mean": float(np.nanmean(values, dtype=np.float64))}


#: File of a run -> what its reader says.
READERS: dict[str, Callable[[Path], Any]] = {
    "plan.json": _plan,
    "groups.json": _graph,
    "widths.json": _widths,
    "similarity.safetensors": _similarity,
    "scores.safetensors": _scores,
    "sensitivity.json": _sensitivity,
    "masks.safetensors": _masks,
    "sweep.json": _sweep,
    "benchmarks.json": _benchmarks,
    "perplexity.json": _perplexities,
    "efficiency.json": _efficiency,
    "samples.json": _samples,
}
