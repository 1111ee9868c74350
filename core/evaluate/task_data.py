"""Where a task's questions come from: the hub, a local mirror `<task>/<split>.jsonl`, or the bundled texts.

A mirrored task keeps lm-eval's own definition and only has its files replaced.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import DataError, InputError
from core.evaluate.task_bundled import VERSION, bundled_spec
from core.evaluate.task_index import Leaf, stock
from core.evaluate.tasks import BUNDLED, Request

_SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")
_INSTEAD = f"give a local mirror with --benchmarks-dir, or use {' and '.join(BUNDLED)}"


@dataclass(frozen=True)
class Part:
    """One task, described but not read yet.

    Attributes:
        manager, definition: lm-eval's task manager, and what it is to load: a name or a configuration.
        source: `hub`, `folder` or `bundled`; data: what exactly is read.
    """

    name: str
    manager: Any
    definition: Any
    version: str
    num_fewshot: int
    source: str
    data: dict[str, Any]

    def load(self) -> Any:
        """lm-eval's task, with its questions read and its few-shot set. Raises DataError or InputError."""
        try:
            (task,) = self.manager.load([self.definition])["tasks"].values()
        except ImportError as error:
            raise InputError(f"{self.name} needs a package that is not installed: {error}.") from error
        except Exception as error:  # a task brings code of its own, which may raise anything
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            if self.source == "hub":
                what = f"{self.name}: {self.data['name']} cannot be read from the hub ({reason}); {_INSTEAD}."
            else:
                what = f"{self.name} cannot be read from {', '.join(self.data['files'].values())}: {reason}."
            raise DataError(what) from error
        task.set_config(key="num_fewshot", value=self.num_fewshot)
        if self.num_fewshot > (most := _most_examples(task)):
            raise InputError(
                f"{self.name} has {most} examples to put into its prompts, got num_fewshot "
                f"{self.num_fewshot}; ask for {most} or fewer."
            )
        return task


def _most_examples(task: Any) -> int:
    """How many examples there are for a prompt: one fewer where lm-eval must leave out the question."""
    drawn = task.fewshot_cfg.sampler != "first_n" and task.fewshot_cfg.split == task.config.test_split
    return len(task.sampler.df) - drawn


@dataclass(frozen=True)
class Job:
    """A requested name and the tasks it stands for.

    Attributes:
        averages: how lm-eval averages the group; empty where it does not.
        group: whether the name is a group of tasks; version: a group's.
        absent: parts that the folder does not hold.
    """

    request: Request
    parts: tuple[Part, ...]
    averages: tuple[dict[str, Any], ...] = ()
    group: bool = False
    version: str = ""
    absent: tuple[str, ...] = field(default=())


def prepare(request: Request, folder: Path | None) -> Job:
    """Find what a request stands for and check its files; no question is read yet.

    Raises:
        UnknownNameError: there is no such task.
        DataError: the mirror lacks a file.
    """
    if request.lm_eval in BUNDLED:
        return Job(request, (_bundled(request),))
    task = stock(request.lm_eval)
    absent: tuple[str, ...] = ()
    if folder is None:
        parts = [_from_hub(task.manager, leaf, request) for leaf in task.leaves]
    else:
        leaves, absent = _mirrored(folder, task.leaves)
        parts = [_from_folder(task.manager, leaf, request, folder) for leaf in leaves]
    return Job(request, tuple(parts), task.averages, task.group, task.version, absent)


def _bundled(request: Request) -> Part:
    from lm_eval.tasks import TaskManager

    spec, data = bundled_spec(request.lm_eval)
    data["files"] = dict(spec["dataset_kwargs"]["data_files"])
    manager = TaskManager(include_defaults=False)
    shots = request.num_fewshot or 0
    return Part(request.lm_eval, manager, spec, str(VERSION), shots, "bundled", data)


def _from_hub(manager: Any, leaf: Leaf, request: Request) -> Part:
    definition: Any = _inside(leaf.name, leaf.changes) if leaf.changes else leaf.name
    data = {"name": leaf.get("dataset_path") or leaf.name, "subset": leaf.get("dataset_name")}
    return Part(leaf.name, manager, definition, _version(leaf), _shots(leaf, request), "hub", data)


def _from_folder(manager: Any, leaf: Leaf, request: Request, folder: Path) -> Part:
    if not isinstance(leaf.get("dataset_path"), str) or leaf.get("custom_dataset"):
        raise InputError(
            f"{leaf.name} makes its data by code and cannot be read from a folder; {_without()}."
        )
    shots, home = _shots(leaf, request), _home(folder, leaf)
    files = {split: home / f"{split}.jsonl" for split in {leaf.get(key) for key in _SPLITS} if split}
    for split in _needed(leaf, shots):
        if not files[split].is_file():
            raise DataError(f"{files[split]} is missing; {leaf.name} needs its split '{split}' there.")
    present = {split: str(path) for split, path in sorted(files.items()) if path.is_file()}
    changes = {
        **leaf.changes,
        **{key: leaf.get(key) if leaf.get(key) in present else None for key in _SPLITS},
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": present},
    }
    content = hashlib.sha256(b"".join(Path(path).read_bytes() for path in present.values()))
    data = {"name": str(home), "sha256": content.hexdigest(), "files": present}
    return Part(leaf.name, manager, _inside(leaf.name, changes), _version(leaf), shots, "folder", data)


def _mirrored(folder: Path, leaves: tuple[Leaf, ...]) -> tuple[tuple[Leaf, ...], tuple[str, ...]]:
    """The leaves that the mirror has a folder for, and the names of the others. Raises DataError for none."""
    if not folder.is_dir():
        raise DataError(f"The benchmarks folder {folder} does not exist; {_without()}.")
    present = tuple(leaf for leaf in leaves if _home(folder, leaf).is_dir())
    if not present:
        leaf = leaves[0]
        missing = _home(folder, leaf) / f"{_needed(leaf, 0)[0]}.jsonl"
        raise DataError(f"{missing} is missing; {leaf.name} needs it there. Or {_without()}.")
    return present, tuple(leaf.name for leaf in leaves if leaf not in present)


def _home(folder: Path, leaf: Leaf) -> Path:
    """The folder with a task's files: its own, or `<data set>/<subset>`, as in `mmlu/anatomy`."""
    own = folder / leaf.name
    subset = leaf.get("dataset_name")
    if own.is_dir() or not isinstance(subset, str) or not isinstance(leaf.get("dataset_path"), str):
        return own
    family = folder / leaf.get("dataset_path").rsplit("/", 1)[-1]
    return family / subset if family.is_dir() else own


def _needed(leaf: Leaf, shots: int) -> list[str]:
    """The splits that must exist: the questions, and the examples if the prompt has some."""
    questions = leaf.get("test_split") or leaf.get("validation_split")
    fewshot = leaf.get("fewshot_config") or {}
    if shots == 0 or fewshot.get("samples"):
        return [questions]
    in_order = (leaf.get("fewshot_split"), fewshot.get("split"), *map(leaf.get, _SPLITS[:2]))
    return [questions, next(filter(None, in_order), questions)]


def _inside(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    # a bare {"task": name} would be taken for a new task and lose lm-eval's definition
    return {"group": "workbench", "task": [{**changes, "task": name}]}


def _shots(leaf: Leaf, request: Request) -> int:
    """How many examples a prompt has, as lm-eval decides it: a task that says 0 stays at 0."""
    own = leaf.get("num_fewshot")
    return int(own or 0) if request.num_fewshot is None or own == 0 else request.num_fewshot


def _version(leaf: Leaf) -> str:
    return str((leaf.get("metadata") or {}).get("version", "N/A"))


def _without() -> str:
    return "leave --benchmarks-dir out to read from the hub"
