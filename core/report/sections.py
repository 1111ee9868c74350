"""The parts of a run's report: numbers, widths, curves, scores, answers, and how it was made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from markupsafe import Markup

from core.report.charts import Table, bars, lines, render
from core.report.numbers import VERDICTS, numbers
from core.report.run import Run
from core.results.efficiency import Efficiency
from core.results.noise import NOISE, difference
from core.results.quantities import BUDGETS
from core.results.tasks import TITLES, TaskResult
from core.results.words import BESIDE, all_cuts, number, with_error
from core.runs.command_line import command_line
from core.runs.events import metric_series, warnings

CURVES = {
    "recover.held_ppl": "Recovery: perplexity on the sequences kept apart",
    "recover.ppl": "Recovery: perplexity of a text that nobody trains on",
    "recover.held_kl": "Recovery: divergence from the teacher on the sequences kept apart",
    "recover.kl": "Recovery: divergence from the teacher in each step",
    "recover.next_token_loss": "Recovery: loss of the next token in each step",
    "recover.layer_loss": "Recovery: layers apart in each step, as a share of their variance",
    "recover.loss": "Recovery: loss of each step",
    "recover.learning_rate": "Recovery: learning rate",
}
#: Whose scores `benchmarks.json` may hold, first to last.
SIDES = ("model", "dense", "pruned", "recovered")
#: What a plan leaves of a layer, as `widths.json` names it.
WIDTHS = {"query_heads": "Query heads", "kv_heads": "Key-value heads", "ffn": "Feed-forward channels"}
TIMES = (
    "model", "batch", "read, ms", "read, tokens/s", "write, ms", "write, tokens/s",
    "cache as allocated, bytes/token",
)  # fmt: skip


def section(run: Run) -> Markup:
    """All that is known of one run."""
    return render(
        "section.html", run=run, summary=summary(run), numbers=numbers(run), widths=widths(run),
        curves=curves(run), scores=scores(run), speed=speed(run), answers=answers(run), made=made(run),
    )  # fmt: skip


def summary(run: Run) -> Markup:
    """One sentence: what was done to which model, and whether it came to its end; then what was warned of."""
    spec, plan = run.spec, run.plan
    said = f"{spec.model.source}: {spec.goal}, {run.status.state}."
    if plan is not None:
        left = "".join(f"{each['words']}; " for each in run.metrics.get(BUDGETS, ()))
        said += (
            f" Method {plan.method or 'by hand'}, scope {plan.scope}; {left}removed {plan.sparsity:.1%} of "
            f"block parameters, {plan.sparsity_total:.1%} of all."
        )
    if run.metrics.get("base") is not None:
        said += f" With earlier cuts: {all_cuts(run.metrics)}."
    return render("summary.html", said=said, warnings=warnings(run.events))


def widths(run: Run) -> Markup:
    """What the plan leaves of every layer."""
    if not run.widths:
        return Markup()
    dense = run.widths.dense
    shares = {
        title: [layer[key] / dense[key] for layer in run.widths.layers]
        for key, title in WIDTHS.items()
        if dense[key]
    }
    return Markup("<h3>Plan</h3>") + bars("What is left of every layer, first to last", shares, "layer")


def curves(run: Run) -> list[Markup]:
    """Every curve with two points or more."""
    series = metric_series(run.events)
    return [lines(_curve(name), {name: points}) for name, points in series.items() if len(points) > 1]


def _curve(name: str) -> str:
    """The title of a curve; of a text that is followed with its name; of what else was trained, too."""
    trained, _, rest = name.partition(".")
    if trained in BESIDE:
        return f"{_curve(f'recover.{rest}')}: {BESIDE[trained]}"
    text = name.removeprefix("recover.ppl.")
    return CURVES.get(name, name) if text == name else f"{CURVES['recover.ppl']}, {text}"


def scores(run: Run) -> Table | None:
    """Benchmarks with standard errors; a difference inside the noise is marked as such."""
    columns = {side: run.scores[side] for side in SIDES if run.scores.get(side)}
    tasks = list(dict.fromkeys(task for results in columns.values() for task in results))
    if not tasks:
        return None
    rows = [_score_row([results.get(task) for results in columns.values()]) for task in tasks]
    head = ["task", "metric", *columns, "change", "n", "examples", "questions from"]
    note = (
        f"± one standard error. A change of less than {NOISE} standard errors of the difference is within "
        "the noise; it is taken from the questions that flipped where both models were asked the same. "
        "Tasks whose questions are bundled are the workbench's own, not standard ones."
    )
    return Table(head, rows, note)


def _score_row(results: Sequence[TaskResult | None]) -> list[object]:
    first = next(result for result in results if result is not None)
    cells = ["-" if result is None else with_error(result.value, result.stderr, ".4f") for result in results]
    return [
        TITLES.get(first.task, first.task),
        first.metric,
        *cells,
        _change(results),
        f"{first.n:,}",
        first.num_fewshot,
        first.source,
    ]


def _change(results: Sequence[TaskResult | None]) -> str:
    """From the first model to the last."""
    if len(results) < 2 or results[0] is None or results[-1] is None:
        return "-"
    against = difference(results[0], results[-1])
    if against.change is None:
        return "not comparable"
    return f"{against.change:+.4f}{VERDICTS.get(against.verdict, '')}"


def _cache(measured: Efficiency) -> str:
    """Bytes of key-value cache, and at which precision; runs of release 0.1 did not record that."""
    precision = f" at {measured.kv_bits} bits" if measured.kv_bits else ""
    return number(measured.kv_bytes_per_token, ",d") + precision


def speed(run: Run) -> Table | None:
    """Reading and writing at every batch size."""
    rows = [
        (
            name,
            timing.batch,
            with_error(timing.prefill_ms, timing.prefill_spread_ms / 2, ",.1f"),
            f"{timing.prefill_tokens_per_second:,.0f}",
            with_error(timing.decode_ms, timing.decode_spread_ms / 2, ",.1f"),
            f"{timing.decode_tokens_per_second:,.1f}",
            _cache(measured),
        )
        for name, measured in run.efficiency.items()
        for timing in measured.timings
    ]
    if not rows:
        return None
    first = next(iter(run.efficiency.values())).timings[0]
    note = (
        f"Prompts of {first.prompt_tokens} tokens, {first.new_tokens} new ones; median of "
        f"{first.repeats} after a warm-up, ± half of slowest minus fastest; models in turns."
    )
    return Table(TIMES, rows, note)


def answers(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Prompt, and what every model says to it, by the model's name."""
    return [
        (
            sample["prompt"],
            [
                (name, said.get("text", ""))
                for name, said in sample.items()
                if isinstance(said, dict) and said
            ],
        )
        for sample in run.samples
    ]


def made(run: Run) -> Markup:
    """The command, versions, texts and the whole spec."""
    extra = run.spec.extra
    rows = [("run", run.id), ("seed", run.spec.seed), *extra.get("versions", {}).items()]
    rows += [
        (f"{part} text", f"{extra[part]['name']} (sha256 {extra[part]['sha256'][:16]}…)")
        for part in ("calibration", "evaluation")
        if part in extra
    ]
    rows += [
        ("evaluation text, too", f"{text['name']} (sha256 {text['sha256'][:16]}…)")
        for text in extra.get("evaluation_also", ())
    ]
    spec = json.dumps(asdict(run.spec), indent=2)
    return render("made.html", command=command_line(run.spec), facts=Table(["", ""], rows), spec=spec)
