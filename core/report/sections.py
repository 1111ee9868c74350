"""The parts of a run's report: numbers, widths, curves, scores, answers, and how it was made."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from core import artifacts
from core.artifacts import EFFICIENCY, EVENTS, METRICS, SAMPLES, WIDTHS
from core.commands import command_line
from core.errors import ArtifactError
from core.evaluate.noise import NOISE, difference, perplexity_difference
from core.evaluate.perplexity_results import read_perplexities
from core.evaluate.task_results import TaskResult, read_benchmarks
from core.events import Event, EventReader, metric_series
from core.report.markup import Markup, bars, element, join, lines, table
from core.spec import RunSpec
from core.terminal import number, with_error

T = TypeVar("T")
#: Quantity -> (name in `metrics.json`, how it is written).
QUANTITIES = {
    "Perplexity": ("ppl", ",.2f"),
    "Parameters": ("params", ",d"),
    "Multiply-accumulates per token": ("macs", ",d"),
    "Key-value cache, bytes per token": ("kv_bytes_per_token", ",d"),
    "Reading a prompt, ms": ("latency_ms", ",.1f"),
    "Writing, tokens per second": ("tokens_per_second", ",.1f"),
    "Memory, GiB": ("memory_gib", ",.3f"),
    "In 8 bits: perplexity": ("ppl_int8", ",.2f"),
    "In 8 bits: reading a prompt, ms": ("latency_ms_int8", ",.1f"),
    "In 8 bits: memory, GiB": ("memory_gib_int8", ",.3f"),
}
CURVES = {
    "recover.held_ppl": "Recovery: perplexity on the sequences kept apart",
    "recover.loss": "Recovery: loss of each step",
    "recover.learning_rate": "Recovery: learning rate",
}
#: Whose scores `benchmarks.json` may hold, first to last.
SIDES = ("model", "dense", "pruned", "recovered")
#: What the verdict on a difference adds to it.
VERDICTS = {"noise": ", within the noise", "unknown": ", noise unknown"}


class Run:
    """What a run left behind; a part that is missing or damaged is None."""

    def __init__(self, run_dir: Path) -> None:
        self.id = run_dir.name
        self.spec: RunSpec = artifacts.read_spec(run_dir)
        self.status = artifacts.read_status(run_dir)
        self.metrics: dict[str, Any] = _or_none(lambda: artifacts.read_json(run_dir / METRICS)) or {}
        self.plan = _or_none(lambda: artifacts.read_plan(run_dir))
        self.widths = _or_none(lambda: artifacts.read_json(run_dir / WIDTHS))
        self.samples = _or_none(lambda: artifacts.read_json(run_dir / SAMPLES)) or []
        self.perplexities = _or_none(lambda: read_perplexities(run_dir)) or {}
        self.scores = _or_none(lambda: read_benchmarks(run_dir)) or {}
        self.efficiency = _or_none(lambda: artifacts.read_json(run_dir / EFFICIENCY)) or {}
        self.events: list[Event] = EventReader(run_dir / EVENTS).read()

    @property
    def title(self) -> str:
        """The name people gave it, or its id."""
        return self.spec.name or self.id


def section(run: Run) -> Markup:
    """All that is known of one run."""
    parts = [summary(run), numbers(run), widths(run), curves(run), scores(run), speed(run), answers(run)]
    return element(
        "section", element("h2", run.title), *parts, element("h3", "How it was made"), made(run), id=run.id
    )


def summary(run: Run) -> Markup:
    """One sentence: what was done to which model, and whether it came to its end."""
    spec, plan = run.spec, run.plan
    said = f"{spec.model.source}: {spec.goal}, {run.status.state}."
    if plan is not None:
        said += (
            f" Method {plan.method or 'by hand'}, scope {plan.scope}; removed {plan.sparsity:.1%} of block "
            f"parameters, {plan.sparsity_total:.1%} of all."
        )
    warnings = [e.data["text"] for e in run.events if str(e.data.get("text", "")).startswith("Warning")]
    return join([element("p", said), *(element("p", one, class_="warn") for one in warnings)])


def numbers(run: Run) -> Markup:
    """Before and after side by side; where a model was trained, the pruned one stands between."""
    found = run.metrics
    if "ppl" in found:
        rows = [
            (name, _shown(found, key, "", form)) for name, (key, form) in QUANTITIES.items() if key in found
        ]
        return join([table(["", "model"], rows), _measured_on(found)])
    if "ppl_after" not in found:
        return Markup()
    trained = "ppl_pruned" in found
    head = ["", "dense", *(["pruned", "recovered"] if trained else ["pruned"]), "change"]
    rows_ = []
    for name, (key, form) in QUANTITIES.items():
        before, after = found.get(f"{key}_before"), found.get(f"{key}_after")
        if before is None and after is None:
            continue
        middle = "_pruned" if key == "ppl" else "_after"  # training changes no size and no speed
        sides = ("_before", *((middle,) if trained else ()), "_after")
        change = f"{after / before - 1:+.1%}" if before and after is not None else "-"
        change += _noise(run, key) if change != "-" else ""
        rows_.append((name, *(_shown(found, key, side, form) for side in sides), change))
    return join([table(head, rows_), _measured_on(found)])


def _shown(found: dict[str, Any], key: str, side: str, form: str) -> str:
    """A quantity as it is written; of a perplexity with its standard error."""
    error = found.get(f"{key.replace('ppl', 'ppl_stderr')}{side}") if key.startswith("ppl") else None
    return with_error(found.get(f"{key}{side}"), error, form)


def _noise(run: Run, key: str) -> str:
    """Whether the change of a perplexity may be chance; nothing of what is no perplexity."""
    ending = {"ppl": "", "ppl_int8": " int8"}.get(key)
    if ending is None:
        return ""
    final = "recovered" if "ppl_recovered" in run.metrics else "pruned"
    before, after = (run.perplexities.get(f"{side}{ending}") for side in ("dense", final))
    verdict = perplexity_difference(before, after).verdict if before and after else "unknown"
    return VERDICTS.get(verdict, "")


def _measured_on(found: dict[str, Any]) -> Markup:
    said = (
        f"Perplexity on {found.get('ppl_text')}, {found.get('ppl_tokens')} tokens in windows of "
        f"{found.get('ppl_window')}."
    )
    if found.get("ppl_windows"):
        said += f" ± one standard error over {found['ppl_windows']} windows."
    if found.get("calibration_text"):
        said += f" Calibrated on {found['calibration_text']}."
    if found.get("recover_data"):
        steps, best = found["recover_steps"], found["recover_best_step"]
        said += f" Recovered on {found['recover_data']}, best after {best} of {steps} steps."
    return element("p", said, class_="quiet")


def widths(run: Run) -> Markup:
    """What the plan leaves of every layer."""
    if not run.widths:
        return Markup()
    dense = run.widths["dense"]
    titles = {"query_heads": "Query heads", "kv_heads": "Key-value heads", "ffn": "Feed-forward channels"}
    shares = {
        title: [layer[key] / dense[key] for layer in run.widths["layers"]]
        for key, title in titles.items()
        if dense[key]
    }
    return join([element("h3", "Plan"), bars("What is left of every layer, first to last", shares, "layer")])


def curves(run: Run) -> Markup:
    """Every curve with two points or more."""
    series = metric_series(run.events)
    drawn = [
        lines(CURVES.get(name, name), {name: points}) for name, points in series.items() if len(points) > 1
    ]
    return join([element("h3", "Curves"), *drawn]) if drawn else Markup()


def scores(run: Run) -> Markup:
    """Benchmarks with standard errors; a difference inside the noise is marked as such."""
    columns = {side: run.scores[side] for side in SIDES if run.scores.get(side)}
    tasks = list(dict.fromkeys(task for found in columns.values() for task in found))
    if not tasks:
        return Markup()
    rows = [_score_row([found.get(task) for found in columns.values()]) for task in tasks]
    head = ["task", "metric", *columns, "change", "n", "examples", "questions from"]
    note = (
        f"± one standard error. A change of less than {NOISE} standard errors of the difference is within "
        "the noise; it is taken from the questions that flipped where both models were asked the same. "
        "Tasks whose questions are bundled are the workbench's own, not standard ones."
    )
    return join([element("h3", "Scores"), table(head, rows), element("p", note, class_="quiet")])


def _score_row(found: Sequence[TaskResult | None]) -> list[object]:
    first = next(one for one in found if one is not None)
    cells = ["-" if one is None else with_error(one.value, one.stderr, ".4f") for one in found]
    return [first.task, first.metric, *cells, _change(found), f"{first.n:,}", first.num_fewshot, first.source]


def _change(found: Sequence[TaskResult | None]) -> str:
    """From the first model to the last."""
    if len(found) < 2 or found[0] is None or found[-1] is None:
        return "-"
    against = difference(found[0], found[-1])
    if against.change is None:
        return "not comparable"
    return f"{against.change:+.4f}{VERDICTS.get(against.verdict, '')}"


def speed(run: Run) -> Markup:
    """Reading and writing at every batch size."""
    rows = [
        (
            name,
            timing["batch"],
            f"{timing['prefill_ms']:,.1f} ± {timing['prefill_spread_ms'] / 2:,.1f}",
            f"{timing['prefill_tokens_per_second']:,.0f}",
            f"{timing['decode_ms']:,.1f} ± {timing['decode_spread_ms'] / 2:,.1f}",
            f"{timing['decode_tokens_per_second']:,.1f}",
            number(one.get("kv_bytes_per_token"), ",d"),
        )
        for name, one in run.efficiency.items()
        for timing in one["timings"]
    ]
    if not rows:
        return Markup()
    head = [
        "model",
        "batch",
        "read, ms",
        "read, tokens/s",
        "write, ms",
        "write, tokens/s",
        "cache, bytes/token",
    ]
    first = next(iter(run.efficiency.values()))["timings"][0]
    note = (
        f"Prompts of {first['prompt_tokens']} tokens, {first['new_tokens']} new ones; median of "
        f"{first['repeats']} after a warm-up, ± half of slowest minus fastest; models in turns."
    )
    return join([element("h3", "Speed"), table(head, rows), element("p", note, class_="quiet")])


def answers(run: Run) -> Markup:
    """What the models say to the same prompts, letter by letter."""
    shown = []
    for sample in run.samples:
        models = [
            (name, one.get("text", "")) for name, one in sample.items() if isinstance(one, dict) and one
        ]
        columns = [element("div", element("h4", name), element("pre", said)) for name, said in models]
        prompt = element("pre", sample["prompt"], class_="prompt")
        shown.append(element("article", prompt, element("div", *columns, class_="sides")))
    return join([element("h3", "Answers"), *shown]) if shown else Markup()


def made(run: Run) -> Markup:
    """The command, versions, texts and the whole spec."""
    extra = run.spec.extra
    rows = [("run", run.id), ("seed", run.spec.seed)]
    rows += [(name, version) for name, version in extra.get("versions", {}).items()]
    rows += [
        (f"{part} text", f"{extra[part]['name']} (sha256 {extra[part]['sha256'][:16]}…)")
        for part in ("calibration", "evaluation")
        if part in extra
    ]
    return join(
        [
            element("pre", command_line(run.spec)),
            table(["", ""], rows),
            element(
                "details",
                element("summary", "spec.json"),
                element("pre", json.dumps(asdict(run.spec), indent=2)),
            ),
        ]
    )


def _or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except ArtifactError:
        return None
