"""A pruning run with benchmarks in parts: the run itself, and each benchmark of both of its models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core.cluster.parts import Part, copy
from core.cluster.split_evaluate import OWN, merged, of_task
from core.files import write_json
from core.results.tasks import BENCHMARKS, keep_benchmarks, read_benchmarks
from core.runs import launch
from core.runs.artifacts import CHECKPOINT, EVENTS, METRICS, MODEL, PARTS, read_metrics, read_spec
from core.runs.events import EventReader
from core.runs.recorder import Recorder
from core.spec.cluster import ClusterSpec
from core.spec.run import RunSpec

#: The part that prunes.
_RUN = "0000-run"
#: The models that are scored -> how `metrics.json` names what comes out, and what their parts count from.
_SIDES = {"dense": ("tasks_before", 1000), "pruned": ("tasks_after", 2000)}


class SplitPrune:
    """The benchmarks of a pruning run: those of the dense model beside it, the smaller one's after it."""

    unit, does = "parts", "Pruning, with benchmarks"

    def __init__(self, run_dir: Path, spec: RunSpec, recorder: Recorder) -> None:
        self.run_dir, self.spec, self.recorder = run_dir, spec, recorder
        self._run = run_dir / PARTS / _RUN
        self._events, self._done = EventReader(self._run / EVENTS), set[str]()
        self._parts = {side: self._scoring(side) for side in _SIDES}
        self.count = 1 + sum(map(len, self._parts.values()))

    def _scoring(self, side: str) -> list[Part]:
        """A part for every benchmark of a model."""
        model = self.spec.model
        if side == "pruned":
            model = replace(model, source=str(self._run), adapter="")
        usual = RunSpec(goal="evaluate", seed=self.spec.seed, data_dir=self.spec.data_dir, model=model)
        asked, first = self.spec.evaluate, _SIDES[side][1] + 1
        return [of_task(usual, asked, number, task, side) for number, task in enumerate(asked.tasks, first)]

    def left(self) -> list[Part]:
        """The run, and what is scored of the dense model."""
        # As it was asked for: what is recommended is settled where the model is known.
        spec, asked = read_spec(self.run_dir), replace(self.spec.evaluate, tasks=())
        alone = replace(spec, name="", evaluate=asked, cluster=ClusterSpec(), track=(), extra={})
        return [Part(_RUN, "The run", alone), *self._parts["dense"]]

    def follow(self, folder: Path) -> list[Part]:
        """Once there is a smaller model, it is scored."""
        return list(self._parts["pruned"]) if folder == self._run else []

    def hand_on(self, folder: Path) -> None:
        """Tell the curves of the run as they come, and what it has to say."""
        for event in self._events.read() if folder == self._run else ():
            if event.type == "metric":
                self.recorder.metric(event.data["name"], event.data["step"], event.data["value"])
            elif event.type == "message":
                self.recorder.message(event.data["text"], event.data["level"])

    def collect(self, folder: Path) -> None:
        """Note a part that is done, and tell what it scored."""
        self._done.add(folder.name)
        for side, parts in self._parts.items():
            if folder.name in (part.name for part in parts):
                for task in read_benchmarks(folder)["model"].tasks.values():
                    self.recorder.metric(f"task.{side}.{task.task}", 0, task.value)

    def done(self) -> int:
        """How many parts are done."""
        return len(self._done)

    def finish(self) -> None:
        """One run of all parts: the files of the run, its model moved here, and the scores of the others."""
        for path in sorted(self._run.iterdir()) if self._run.is_dir() else ():
            if path.name == MODEL and not (self.run_dir / MODEL).exists():
                path.rename(self.run_dir / MODEL)
            elif path.name not in (*OWN, CHECKPOINT, MODEL) and not path.name.startswith("."):
                copy(path, self.run_dir / path.name)
        whole = read_metrics(self._run)
        for side, (key, _) in _SIDES.items():
            folders = [self.run_dir / PARTS / part.name for part in self._parts[side]]
            scored = merged([read_benchmarks(folder)["model"] for folder in folders])
            keep_benchmarks(self.run_dir, side, scored)
            whole[key] = scored.summary()
        write_json(self.run_dir / METRICS, {**whole, "seconds": self.recorder.seconds})
        for name in (BENCHMARKS, METRICS, MODEL):
            self.recorder.artifact(name)
        spec, done = read_spec(self.run_dir), read_spec(self._run)
        launch.rewrite(self.run_dir, replace(spec, prune=done.prune, extra={**spec.extra, **done.extra}))


def splits_off(spec: RunSpec) -> bool:
    """Whether a pruning run has benchmarks that can be scored beside it.

    Where the smaller model is trained, it is scored before that, too, and only the run itself has it then.
    """
    trained = spec.recover.method != "none" or spec.prune.without_dependency
    return spec.goal == "prune" and bool(spec.evaluate.tasks) and not trained
