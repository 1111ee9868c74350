"""Results of benchmarks, and when two may be compared. Nothing here needs torch or lm-eval."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.files import read_record, write_json

BENCHMARKS = "benchmarks.json"
#: Where the questions came from. `bundled` tasks are the workbench's own, not standard ones.
SOURCES = ("hub", "folder", "bundled")
#: What pages and reports call the workbench's own tasks; a standard one is known by its name.
TITLES = {"bundled_capitals": "capitals", "bundled_next_sentence": "next sentence"}


@dataclass(frozen=True)
class Sample:
    """One question and its answers.

    Attributes:
        id: lm-eval's number of the question and the hash of its content; the same wherever the data lies.
        question: the question without the examples before it.
        answer: the right answer; given: the model's.
        right: None where the task has no right or wrong (a perplexity, an overlap score).
    """

    id: str
    question: str
    answer: str
    given: str
    right: bool | None


@dataclass(frozen=True)
class TaskResult:
    """The scores of one task, and everything that must be equal before they are compared with others.

    Attributes:
        task: the name that the user gave; lm_eval_task: lm-eval's name.
        metrics: metric -> value; stderrs: metric -> standard error, None where lm-eval has none.
        metric: the metric that the papers quote.
        n: how many questions were scored.
        template: `none`, or `chat` and the hash of the chat template.
        source: one of `SOURCES`; data: what exactly was read; its `questions` is the hash of all sample ids.
        parts: the tasks a group or suite was averaged over; absent: parts the folder does not hold.
        part_of: the group whose part this task is.
        truncated: how many prompts lost their beginning because they did not fit into the context.
        cached: whether it comes from an earlier run on the same weights.
    """

    task: str
    lm_eval_task: str
    metrics: dict[str, float]
    stderrs: dict[str, float | None]
    metric: str
    n: int
    version: str
    num_fewshot: int
    limit: int | None
    template: str
    source: str
    data: dict[str, Any] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    part_of: str = ""
    truncated: int = 0
    seconds: float = 0.0
    cached: bool = False
    samples: tuple[Sample, ...] = ()

    @property
    def value(self) -> float:
        """The metric the papers quote."""
        return self.metrics[self.metric]

    @property
    def stderr(self) -> float | None:
        """The standard error of `value`."""
        return self.stderrs.get(self.metric)

    def summary(self) -> dict[str, Any]:
        """Metrics, standard errors and n, without the questions; `stderr` is that of `metric`."""
        others = {f"{name}_stderr": error for name, error in self.stderrs.items()}
        left_out = ("task", "metrics", "stderrs", "samples")
        facts = {key: value for key, value in asdict(self).items() if key not in left_out}
        own = self.source == "bundled"
        return {**self.metrics, **others, "stderr": self.stderr, **facts, "own_task": own}

    def __post_init__(self) -> None:
        if self.metric not in self.metrics:
            raise ValueError(f"{self.task} has no value of its metric {self.metric!r}")


@dataclass(frozen=True)
class BenchmarkResult:
    """All tasks of one call, in the order given; `tasks` alone while others are still to be scored.

    Attributes:
        tasks: name -> result; a group or suite comes before its parts.
        refused: name -> why the task was not scored.
        weights: the hash of the model and its tokenizer.
        seed: 0 gives lm-eval's own default seeds.
    """

    tasks: dict[str, TaskResult]
    refused: dict[str, str] = field(default_factory=dict)
    weights: str = ""
    lm_eval: str = ""
    batch_size: str = ""
    seed: int = 0

    def summary(self) -> dict[str, dict[str, Any]]:
        """task -> metrics, `stderr`, `n` and how it was measured, as the command line prints it."""
        return {name: result.summary() for name, result in self.tasks.items()}


def read_benchmarks(run_dir: Path) -> dict[str, BenchmarkResult]:
    """`benchmarks.json`: side -> what was scored of that model, with the questions; empty if there is none.

    Raises:
        ArtifactError: it is damaged.
    """
    path = run_dir / BENCHMARKS
    return read_record(path, dict[str, BenchmarkResult], "run the benchmarks again") if path.exists() else {}


def keep_benchmarks(run_dir: Path, side: str, result: BenchmarkResult) -> None:
    """Add what was scored of one model to `benchmarks.json`. Raises ArtifactError if that is damaged."""
    results = {**read_benchmarks(run_dir), side: result}
    write_json(run_dir / BENCHMARKS, {name: asdict(each) for name, each in results.items()})


def not_comparable(before: TaskResult, after: TaskResult) -> str:
    """Why two results must not be set side by side; empty if they may."""
    fields = {
        "task": (before.lm_eval_task, after.lm_eval_task),
        "task version": (before.version, after.version),
        "few-shot examples": (before.num_fewshot, after.num_fewshot),
        "limit": (before.limit, after.limit),
        "prompt template": (before.template, after.template),
        "parts": (before.parts, after.parts),
        "questions": (before.data.get("questions"), after.data.get("questions")),
    }
    differing = [f"{name} {then} and {now}" for name, (then, now) in fields.items() if then != now]
    return f"{before.task}: not comparable, for the {'; the '.join(differing)} differ." if differing else ""


def flips(before: TaskResult, after: TaskResult) -> Iterator[tuple[Sample, Sample]]:
    """Yield the questions that one result has right and the other wrong, as (before, after)."""
    now = {sample.id: sample for sample in after.samples}
    for sample in before.samples:
        other = now.get(sample.id)
        if other is not None and None not in (sample.right, other.right) and sample.right != other.right:
            yield sample, other
