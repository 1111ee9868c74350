"""The parts of a run's report: numbers, widths, curves, scores, answers, and how it was made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from core.report.markup import Markup, bars, element, join, lines, table
from core.report.numbers import VERDICTS, numbers
from core.report.run import Run
from core.results.efficiency import Efficiency
from core.results.noise import NOISE, difference
from core.results.tasks import TaskResult
from core.results.words import number, with_error
from core.runs.command_line import command_line
from core.runs.events import metric_series

CURVES = {
    "recover.held_ppl": "Recovery: perplexity on the sequences kept apart",
    "recover.loss": "Recovery: loss of each step",
    "recover.learning_rate": "Recovery: learning rate",
}
#: Whose scores `benchmarks.json` may hold, first to last.
SIDES = ("model", "dense", "pruned", "recovered")


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


def _cache(measured: Efficiency) -> str:
    """Bytes of key-value cache, and at which precision; runs of release 0.1 did not record that."""
    precision = f" at {measured.kv_bits} bits" if measured.kv_bits else ""
    return number(measured.kv_bytes_per_token, ",d") + precision


def speed(run: Run) -> Markup:
    """Reading and writing at every batch size."""
    rows = [
        (
            name,
            timing.batch,
            with_error(timing.prefill_ms, timing.prefill_spread_ms / 2, ",.1f"),
            f"{timing.prefill_tokens_per_second:,.0f}",
            with_error(timing.decode_ms, timing.decode_spread_ms / 2, ",.1f"),
            f"{timing.decode_tokens_per_second:,.1f}",
            _cache(one),
        )
        for name, one in run.efficiency.items()
        for timing in one.timings
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
        "cache as allocated, bytes/token",
    ]
    first = next(iter(run.efficiency.values())).timings[0]
    note = (
        f"Prompts of {first.prompt_tokens} tokens, {first.new_tokens} new ones; median of "
        f"{first.repeats} after a warm-up, ± half of slowest minus fastest; models in turns."
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
