"""The names a user may give: seven commonsense tasks and their average, MMLU, BBH, and all of lm-eval's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.errors import InputError
from core.results.quoted import COMMONSENSE
from core.results.tasks import TaskResult

SUITES = {"commonsense": tuple(COMMONSENSE)}
BUNDLED = {"bundled_capitals": "acc", "bundled_next_sentence": "acc_norm"}
#: What a paper means by a name, as (lm-eval's name, examples in the prompt). NutePrune's BBH is answered
#: directly; lm-eval's own `bbh` reasons step by step and has the name `bbh_cot_fewshot`.
MEANING = {"mmlu": ("mmlu", 5), "bbh": ("bbh_fewshot", 3)}
FRIENDLY = (*SUITES, *COMMONSENSE, *MEANING, *BUNDLED)


@dataclass(frozen=True)
class Request:
    """A task or group of lm-eval's to run.

    Attributes:
        name: as the user wrote it; lm_eval: as lm-eval calls it.
        num_fewshot: examples in the prompt, None for what the task says itself.
    """

    name: str
    lm_eval: str
    num_fewshot: int | None


def requests(names: Sequence[str], num_fewshot: int | None = None) -> list[Request]:
    """Turn names as the user wrote them into what to run, each once. Raises InputError on an empty list."""
    if not [name for name in names if name.strip()]:
        raise InputError(f"No task was named; give some of {', '.join(FRIENDLY)} or any lm-eval task.")
    unique: dict[str, Request] = {}
    for name in dict.fromkeys(name.strip() for name in names if name.strip()):
        for member in SUITES.get(name, (name,)):
            stock, shots = MEANING.get(member, (member, None))
            shots = shots if num_fewshot is None else num_fewshot
            unique.setdefault(member, Request(member, stock, shots))
    return list(unique.values())


def quoted_metric(task: str, metrics: Iterable[str]) -> str:
    """The metric the papers quote, or the task's first."""
    present = list(metrics)
    quoted = {**COMMONSENSE, **BUNDLED}.get(task, "")
    return quoted if quoted in present else present[0]


def suite_averages(results: Mapping[str, TaskResult]) -> dict[str, TaskResult]:
    """Average every suite whose tasks are all scored: the plain mean, as in the papers' tables.

    Its standard error treats the tasks as independent: sqrt(sum of squares) / count.
    """
    averages = {}
    for suite, members in SUITES.items():
        parts = [results[name] for name in members if name in results]
        if len(parts) == len(members):
            averages[suite] = _average(suite, parts)
    return averages


def _average(suite: str, parts: list[TaskResult]) -> TaskResult:
    squares = [part.stderr**2 for part in parts if part.stderr is not None]
    spread = math.sqrt(sum(squares)) / len(parts) if len(squares) == len(parts) else None
    return TaskResult(
        task=suite,
        lm_eval_task="",
        metrics={"average": sum(part.value for part in parts) / len(parts)},
        stderrs={"average": spread},
        metric="average",
        n=sum(part.n for part in parts),
        version=" ".join(f"{part.task} {part.version}" for part in parts),
        num_fewshot=max(part.num_fewshot for part in parts),
        limit=parts[0].limit,
        template=parts[0].template,
        source=parts[0].source,
        data={
            "metrics": {part.task: part.metric for part in parts},
            "questions": " ".join(str(part.data.get("questions", "")) for part in parts),
        },
        parts=tuple(part.task for part in parts),
        truncated=sum(part.truncated for part in parts),
        seconds=sum(part.seconds for part in parts),
    )
