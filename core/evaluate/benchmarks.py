"""Run lm-eval on a model in memory: one task after the other, each saved as soon as it is done.

lm-eval's own `evaluate` computes the scores. This module adds data that need not come from the hub,
progress, a cache, and questions that can be compared one by one.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from core.errors import DataError, InputError, PruneError
from core.evaluate.task_cache import ResultCache, fingerprint
from core.evaluate.task_data import Job, Part, prepare
from core.evaluate.task_lm import quiet, wrap
from core.evaluate.task_scores import group_result, task_result
from core.evaluate.tasks import requests, suite_averages
from core.results.tasks import BenchmarkResult, TaskResult

#: Progress is reported in thousandths of a task.
_STEPS = 1000


@dataclass(frozen=True)
class Settings:
    """What holds for every task of one call."""

    limit: int | None
    seed: int
    template: str
    truncate: bool


def run_benchmarks(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int | str = "auto",
    benchmarks_dir: Path | None = None,
    seed: int = 0,
    chat: bool = False,
    truncate: bool = False,
    cache_dir: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_task: Callable[[TaskResult], None] | None = None,
) -> BenchmarkResult:
    """Score a model on tasks, in the order given.

    Args:
        tasks: `commonsense` (seven tasks and their average), `mmlu`, `bbh`, the bundled tasks, or any
            name lm-eval knows.
        limit: how many questions of a task are asked, from its first; a group has as many in each part.
        num_fewshot: examples in the prompt; None takes what the papers (MMLU 5, BBH 3) or the task say.
        benchmarks_dir: a local mirror `<task>/<split>.jsonl`; None reads from the hub.
        seed: 0 gives lm-eval's default seeds.
        chat: put prompts into the tokenizer's chat template.
        truncate: cut prompts that do not fit from the left, as lm-eval does, instead of refusing the task.
        cache_dir: a folder of finished tasks, which are read from there for the same weights.
        on_progress: called with thousandths of tasks done and in all; may raise StopRequested.
        on_task: called with each task as it is done.

    Returns:
        The results. `refused` names each task that cannot be scored, with the reason.

    Raises:
        InputError: nothing could be scored, or an argument is out of range.
        UnknownNameError: there is no such task; nothing was started.
        DataError: the mirror lacks a file.
    """
    _check(limit, num_fewshot, batch_size, seed)
    wanted = requests(tasks, num_fewshot)
    settings = Settings(limit, seed, _template(tokenizer, chat), truncate)
    with quiet():
        jobs = [prepare(request, benchmarks_dir) for request in wanted]
        session = _Session(model, tokenizer, batch_size, settings, ResultCache(cache_dir))
        session.listen(sum(len(job.parts) for job in jobs), on_progress, on_task)
        for job in jobs:
            session.run(job)
    return session.result()


class _Session:
    """One call: the wrapped model, the tasks that are done, and the callbacks to tell."""

    def __init__(
        self, model: Any, tokenizer: Any, batch_size: int | str, settings: Settings, cache: ResultCache
    ) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.settings, self.cache = settings, cache
        self.weights = fingerprint(model, tokenizer)
        self.results: dict[str, TaskResult] = {}
        self.refused: dict[str, PruneError] = {}
        self.offline = ""
        self.finished = 0

    @cached_property
    def lm(self) -> Any:
        """lm-eval's model, wrapped on first use: if the cache holds everything, nothing needs it."""
        return wrap(self.model, self.tokenizer, self.batch_size, truncate=self.settings.truncate)

    def listen(
        self,
        parts: int,
        on_progress: Callable[[int, int], None] | None,
        on_task: Callable[[TaskResult], None] | None,
    ) -> None:
        """Set the callbacks, which will hear of `parts` tasks."""
        self.total = parts * _STEPS
        self.on_progress = on_progress or (lambda done, total: None)
        self.on_task = on_task or (lambda result: None)
        self.on_progress(0, self.total)

    def run(self, job: Job) -> None:
        """Run every part of a job, then average them if it is a group."""
        name, scored = job.request.name, []
        for part in job.parts:
            task = part.name if job.group else name
            try:
                result = replace(self._part(part), task=task, part_of=name if job.group else "")
            except (InputError, DataError) as error:
                self.refused[task] = error
            else:
                scored.append(result)
                self.on_task(result)
            self.finished += 1
            self.on_progress(self.finished * _STEPS, self.total)
        if job.group and len(scored) == len(job.parts) and job.averages:
            self.results[name] = group_result(job, scored)
            self.on_task(self.results[name])
        self.results.update({result.task: result for result in scored})

    def _part(self, part: Part) -> TaskResult:
        """A result from the cache, or scored now and saved. Raises InputError or DataError."""
        key = self._key(part)
        cached = self.cache.read(key)
        if cached is not None:
            return cached
        if part.source == "hub" and self.offline:
            raise DataError(self.offline)
        began = time.perf_counter()
        task = self._load(part)
        truncated_before = self.lm.truncated
        raw = self._evaluate(part, task)
        result = task_result(part, task, raw, self.settings.limit, self.settings.template)
        truncated, seconds = self.lm.truncated - truncated_before, time.perf_counter() - began
        result = replace(result, truncated=truncated, seconds=seconds)
        self.cache.write(key, result)
        return result

    def _load(self, part: Part) -> Any:
        try:
            return part.load()
        except DataError as error:
            if part.source == "hub" and isinstance(error.__cause__, ConnectionError):
                self.offline = str(error)  # each further try would wait half a minute
            raise

    def _evaluate(self, part: Part, task: Any) -> dict[str, Any]:
        """Let lm-eval evaluate one task. Raises InputError for prompts that do not fit."""
        from lm_eval.evaluator import evaluate

        if getattr(task, "UNSAFE_CODE", False):
            raise InputError(f"{part.name} runs code that the model writes; it is not run here.")
        _seed(task, self.settings.seed)
        chat = self.settings.template != "none"
        self.lm.done, self.lm.report = 0, self._reporter(task)
        try:
            return evaluate(
                lm=self.lm,
                task_dict={"tasks": {task.task_name: task}},
                limit=self.settings.limit,
                apply_chat_template=chat,
                fewshot_as_multiturn=chat,
            )
        except InputError as error:
            raise InputError(f"{part.name} with {part.num_fewshot} examples: {error}") from error

    def _reporter(self, task: Any) -> Callable[[int], None]:
        """Turn answered requests into thousandths of this task; lm-eval knows their number at the first."""
        reported = -1

        def report(done: int) -> None:
            nonlocal reported
            share = min(_STEPS - 1, done * _STEPS // max(1, len(task.instances)))
            if share != reported:
                reported = share
                self.on_progress(self.finished * _STEPS + share, self.total)

        return report

    def _key(self, part: Part) -> dict[str, Any]:
        """Everything that a score depends on."""
        data = {name: value for name, value in part.data.items() if name in ("name", "subset", "sha256")}
        if "sha256" in data:
            del data["name"]  # the same files in another folder are the same questions
        return {
            "task": part.name,
            "weights": self.weights,
            "version": part.version,
            "num_fewshot": part.num_fewshot,
            "limit": self.settings.limit,
            "template": self.settings.template,
            "truncate": self.settings.truncate,
            "seed": self.settings.seed,
            "source": part.source,
            "data": data,
            "lm_eval": metadata.version("lm-eval"),
        }

    def result(self) -> BenchmarkResult:
        """Everything that was scored. Raises the first refusal if nothing was."""
        if not self.results:
            raise next(iter(self.refused.values()))
        reasons = {name: str(error) for name, error in self.refused.items()}
        ordered = {**suite_averages(self.results), **self.results}
        version = metadata.version("lm-eval")
        batch_size = str(self.batch_size)
        return BenchmarkResult(ordered, reasons, self.weights, version, batch_size, self.settings.seed)


def _seed(task: Any, seed: int) -> None:
    """Seed what lm-eval draws from, with its own seeds at 0: no score depends on what ran before."""
    import numpy as np
    from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
    from lm_eval.utils import set_torch_seed

    random.seed(DEFAULT_RANDOM_SEED + seed)
    np.random.seed(DEFAULT_OTHER_SEED + seed)
    set_torch_seed(DEFAULT_OTHER_SEED + seed)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED + seed)


def _template(tokenizer: Any, chat: bool) -> str:
    """The name of the prompt template in a record. Raises InputError if the model has none."""
    if not chat:
        return "none"
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        raise InputError("This model has no chat template; run the benchmarks without one.")
    return f"chat {hashlib.sha256(str(template).encode()).hexdigest()[:12]}"


def _check(limit: int | None, num_fewshot: int | None, batch_size: int | str, seed: int) -> None:
    for name, value, least in (("limit", limit, 1), ("num_fewshot", num_fewshot, 0), ("seed", seed, 0)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise InputError(f"{name} must be a whole number from {least} up, got {value!r}.")
    if batch_size != "auto" and (not isinstance(batch_size, int) or batch_size < 1):
        raise InputError(f"batch size must be 'auto' or a whole number from 1 up, got {batch_size!r}.")
