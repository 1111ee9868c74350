"""Turn what lm-eval returns into our records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from core.evaluate.task_data import Job, Part
from core.evaluate.tasks import quoted_metric
from core.results.tasks import Sample, TaskResult

_STDERR = "_stderr"


def task_result(part: Part, task: Any, raw: dict[str, Any], limit: int | None, template: str) -> TaskResult:
    """The record of one task from what `lm_eval.evaluate` returned for it alone."""
    (name,) = raw["results"]
    metrics, stderrs = _metrics(raw["results"][name])
    metric = quoted_metric(part.name, metrics)
    samples = tuple(_samples(task, raw["samples"][name], metric))
    ids = "".join(sample.id for sample in samples)
    return TaskResult(
        task=part.name,
        lm_eval_task=part.name,
        metrics=metrics,
        stderrs=stderrs,
        metric=metric,
        n=raw["n-samples"][name]["effective"],
        version=str(raw["versions"][name]),
        num_fewshot=part.num_fewshot,
        limit=limit,
        template=template,
        source=part.source,
        data={**part.data, "questions": hashlib.sha256(ids.encode()).hexdigest()[:16]},
        samples=samples,
    )


def group_result(job: Job, parts: list[TaskResult]) -> TaskResult:
    """Average a group by lm-eval's own rules: over all questions, or over tasks if the group says so."""
    metrics: dict[str, float] = {}
    stderrs: dict[str, float | None] = {}
    for average in job.averages:
        for name in _averaged(average, parts):
            metrics[name], stderrs[name] = _average(name, average.get("weight_by_size", True), parts)
    first = parts[0]
    return TaskResult(
        task=job.request.name,
        lm_eval_task=job.request.lm_eval,
        metrics=metrics,
        stderrs=stderrs,
        metric=quoted_metric(job.request.name, metrics),
        n=sum(part.n for part in parts),
        version=job.version if job.version != "N/A" else first.version,
        num_fewshot=first.num_fewshot,
        limit=first.limit,
        template=first.template,
        source=first.source,
        data={"questions": " ".join(part.data["questions"] for part in parts)},
        parts=tuple(part.task for part in parts),
        absent=job.absent,
        truncated=sum(part.truncated for part in parts),
        seconds=sum(part.seconds for part in parts),
        cached=all(part.cached for part in parts),
    )


def _averaged(average: dict[str, Any], parts: list[TaskResult]) -> list[str]:
    """The metrics that an entry of `aggregate_metric_list` averages, one for each filter."""
    wanted = average.get("filter_list")
    filters = [wanted] if isinstance(wanted, str) else wanted
    present = dict.fromkeys(name for part in parts for name in part.metrics)
    names = [name for name in present if name.split(",")[0] == average["metric"]]
    return [name for name in names if filters is None or (name.partition(",")[2] or "none") in filters]


def _average(name: str, weighted: bool, parts: list[TaskResult]) -> tuple[float, float | None]:
    from lm_eval.api.metrics import aggregate_subtask_metrics, pooled_sample_stderr, unweighted_mean_stderr

    measured = [part for part in parts if name in part.metrics]
    sizes = [part.n for part in measured]
    value = aggregate_subtask_metrics([part.metrics[name] for part in measured], sizes, weighted)
    errors = [error for part in measured if (error := part.stderrs[name]) is not None]
    if len(errors) < len(measured):
        return value, None
    return value, pooled_sample_stderr(errors, sizes) if weighted else unweighted_mean_stderr(errors)


def _metrics(raw: dict[str, Any]) -> tuple[dict[str, float], dict[str, float | None]]:
    """Values and errors by metric: `acc,none` becomes `acc`; another filter stays in the name."""
    metrics: dict[str, float] = {}
    stderrs: dict[str, float | None] = {}
    for key, value in raw.items():
        metric, comma, filter_name = key.partition(",")
        if comma and isinstance(value, (int, float)) and not metric.endswith(_STDERR):
            name = metric if filter_name == "none" else key
            error = raw.get(f"{metric}{_STDERR},{filter_name}")
            metrics[name] = float(value)
            stderrs[name] = float(error) if isinstance(error, (int, float)) else None
    return metrics, stderrs


def _samples(task: Any, rows: list[dict[str, Any]], metric: str) -> Iterable[Sample]:
    """Yield one sample per question, under the filter that the quoted metric was taken from."""
    name, _, filter_name = metric.partition(",")
    for row in rows:
        if row["filter"] != (filter_name or "none"):
            continue
        right, given = _answers(task, row, name)
        score = row.get(name)
        correct = bool(score) if isinstance(score, (bool, int, float)) and score in (0, 1) else None
        yield Sample(f"{row['doc_id']}-{row['doc_hash'][:12]}", _question(task, row), right, given, correct)


def _question(task: Any, row: dict[str, Any]) -> str:
    """The question without the examples before it; WinoGrande's choices come first: all of them."""
    text = task.doc_to_text(row["doc"])
    if isinstance(text, int):
        return f"{' / '.join(task.doc_to_choice(row['doc']))} … {row['target']}"
    return str(text) or str(row["arguments"][0][0])


def _answers(task: Any, row: dict[str, Any], metric: str) -> tuple[str, str]:
    """The right answer and the model's, as text where the task has some."""
    target, responses = row["target"], row["filtered_resps"]
    if task.OUTPUT_TYPE != "multiple_choice":
        return str(target), str(responses[0]) if responses else ""
    choices = [str(choice) for choice in task.doc_to_choice(row["doc"])]
    scores = [float(response[0]) for response in responses]
    if metric == "acc_norm":
        scores = [score / max(1, len(choice)) for score, choice in zip(scores, choices, strict=False)]
    chosen = max(range(len(scores)), key=scores.__getitem__)
    if isinstance(text := task.doc_to_text(row["doc"]), int):
        target = text
    right = choices[target] if isinstance(target, int) and 0 <= target < len(choices) else str(target)
    return right, choices[chosen] if chosen < len(choices) else ""
