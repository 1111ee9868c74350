"""A measurement with several benchmarks in parts: each benchmark is one, and everything else is another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from core.cluster.parts import Part, copy
from core.files import write_json
from core.results.tasks import BENCHMARKS, BenchmarkResult, keep_benchmarks, read_benchmarks
from core.runs import launch
from core.runs.artifacts import EVENTS, LOG, METRICS, PARTS, SPEC, read_metrics, read_spec
from core.runs.recorder import Recorder
from core.runs.status import STATUS
from core.spec.cluster import ClusterSpec
from core.spec.evaluate import EvalSpec
from core.spec.run import RunSpec

#: The part without benchmarks.
_REST = "0000-rest"
#: What a part has for itself.
OWN = (SPEC, STATUS, EVENTS, LOG, METRICS, BENCHMARKS, "node.json")


class SplitEvaluate:
    """The benchmarks of a measurement."""

    unit, does = "parts", "Measuring parts"

    def __init__(self, run_dir: Path, spec: RunSpec, recorder: Recorder) -> None:
        self.run_dir, self.spec, self.recorder = run_dir, spec, recorder
        self.parts = list(_parts(spec))
        self.count, self._done = len(self.parts), set[str]()

    def left(self) -> list[Part]:
        """All: those that are finished are only collected."""
        return list(self.parts)

    def hand_on(self, folder: Path) -> None:
        """Nothing: parts have nothing in common but the weights."""

    def follow(self, folder: Path) -> list[Part]:
        """Nothing waits for a part."""
        return []

    def collect(self, folder: Path) -> None:
        """Note a part that is done, and tell what it scored."""
        self._done.add(folder.name)
        for result in read_benchmarks(folder).values():
            for task in result.tasks.values():
                self.recorder.metric(f"task.model.{task.task}", 0, task.value)

    def done(self) -> int:
        """How many parts are done."""
        return len(self._done)

    def finish(self) -> None:
        """One run of all parts: the files of the one without benchmarks, and the scores of the others."""
        folders = [self.run_dir / PARTS / part.name for part in self.parts]
        rest = folders[0]
        for path in rest.iterdir():
            if path.name not in OWN and not path.name.startswith("."):
                copy(path, self.run_dir / path.name)
        scored = merged([read_benchmarks(folder)["model"] for folder in folders[1:]])
        keep_benchmarks(self.run_dir, "model", scored)
        whole = {**read_metrics(rest), "tasks": scored.summary(), "seconds": self.recorder.seconds}
        write_json(self.run_dir / METRICS, whole)
        for name in (BENCHMARKS, METRICS):
            self.recorder.artifact(name)
        spec = read_spec(self.run_dir)
        launch.rewrite(self.run_dir, replace(spec, extra={**spec.extra, **read_spec(rest).extra}))


def _parts(spec: RunSpec) -> Iterator[Part]:
    """First what is no benchmark; then the benchmarks, which measure one window of text besides."""
    usual = replace(spec, name="", cluster=ClusterSpec(), track=(), extra={})
    asked = spec.evaluate
    yield Part(_REST, "All but benchmarks", replace(usual, evaluate=replace(asked, tasks=())))
    for number, task in enumerate(asked.tasks, 1):
        yield of_task(usual, asked, number, task)


def of_task(usual: RunSpec, asked: EvalSpec, number: int, task: str, side: str = "") -> Part:
    """A part that scores one benchmark; `usual` says all but what is measured, `asked` how it is."""
    little = replace(
        asked, also=(), prompts=(), efficiency=False, int8=False, tokens=asked.window_length, tasks=(task,)
    )
    name = "-".join(filter(None, (f"{number:04d}", side, re.sub(r"[^A-Za-z0-9_.-]+", "_", task))))
    of = f" of the {side} model" if side else ""
    return Part(name, f"Benchmark {task}{of}", replace(usual, evaluate=little))


def merged(results: Sequence[BenchmarkResult]) -> BenchmarkResult:
    """What several parts scored of one model, as if it had been one."""
    return replace(
        results[0],
        tasks={name: task for result in results for name, task in result.tasks.items()},
        refused={name: why for result in results for name, why in result.refused.items()},
    )
