"""Find lm-eval's own definition of a task without reading all 14,000 of them, which takes half a minute."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.errors import InputError, UnknownNameError
from core.evaluate.tasks import FRIENDLY
from core.registry import unknown

_NAMED = re.compile(rb"^[\"']?(?:task|group)[\"']?:[ \t]*[\"']?([\w.:+-]+)[\"']?[ \t]*\r?$", re.MULTILINE)
_TAGGED = re.compile(
    rb"^[\"']?tag[\"']?:[ \t]*(?:[\"']?([\w.:+-]+)[\"']?[ \t]*\r?$|\r?\n((?:[ \t]*-[ \t]*\S+[ \t]*\r?\n)+))",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Leaf:
    """One task that lm-eval scores by itself.

    Attributes:
        config: its configuration in lm-eval, functions unresolved.
        changes: what the group that lists it changes in it.
    """

    name: str
    config: dict[str, Any]
    changes: dict[str, Any] = field(default_factory=dict)

    def get(self, key: str, default: Any = None) -> Any:
        """A setting as it will apply."""
        return {**self.config, **self.changes}.get(key, default)


@dataclass(frozen=True)
class Stock:
    """What a name in lm-eval stands for: its leaves, and how a group averages them.

    Attributes:
        manager: lm-eval's task manager, which knows at least these tasks.
        averages: the group's `aggregate_metric_list`; empty for a task, and for a group without an average.
        group: whether it is a group (or a tag); version: a group's.
    """

    manager: Any
    leaves: tuple[Leaf, ...]
    averages: tuple[dict[str, Any], ...] = ()
    group: bool = False
    version: str = ""


def stock(name: str) -> Stock:
    """Look a name up in lm-eval. Raises UnknownNameError with the nearest names."""
    from lm_eval.tasks._index import Kind

    manager = _manager_for(name)
    entry = manager.task_index[name]
    leaves = tuple(_leaves(manager.task_index, name, {}))
    if entry.kind in (Kind.TASK, Kind.PY_TASK):
        return Stock(manager, leaves)
    config = entry.cfg or {}
    averages = config.get("aggregate_metric_list") or []
    version = str((config.get("metadata") or {}).get("version", "N/A"))
    return Stock(
        manager, leaves, tuple(averages if isinstance(averages, list) else [averages]), True, version
    )


def _manager_for(name: str) -> Any:
    """A task manager over just the folders that `name` and its members are defined in."""
    from lm_eval.tasks import TaskManager

    folders, wanted = set[Path](), {name}
    while wanted:
        new = {_folder(member) for member in wanted} - folders
        if not new or _root() in new:
            return _whole_manager(name)
        folders |= new
        # a tag would lose members if a folder were read twice
        outer = [folder for folder in sorted(folders) if not folders & set(folder.parents)]
        manager = TaskManager(include_defaults=False, include_path=[str(folder) for folder in outer])
        wanted = set(_missing(manager.task_index, name)) if name in manager.task_index else {name}
    return manager


@lru_cache(maxsize=1)
def _all_tasks() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _whole_manager(name: str) -> Any:
    """A manager over all tasks, for names that the files do not show. Raises UnknownNameError."""
    encoded = name.encode()
    if not any(encoded in text for text in _definitions().values()):
        raise unknown_task(name)
    manager = _all_tasks()
    if name not in manager.task_index:
        raise unknown_task(name)
    return manager


def unknown_task(name: str) -> UnknownNameError:
    """The error for a task that does not exist, with the nearest name and the usual ones."""
    near = difflib.get_close_matches(name, list(dict.fromkeys([*FRIENDLY, *_names()])), n=3)
    if not near:
        return unknown("task", name, list(FRIENDLY))
    hint = " or ".join(f"'{candidate}'" for candidate in near)
    usual = ", ".join(FRIENDLY)
    return UnknownNameError(
        f"Unknown task '{name}'. Did you mean {hint}? Usual: {usual}; or any lm-eval task."
    )


def _root() -> Path:
    """Where lm-eval keeps its tasks. Raises InputError if it is not installed."""
    spec = find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise InputError("Benchmarks need the package lm-eval; run `make setup`.")
    return Path(spec.origin).parent / "tasks"


@lru_cache(maxsize=1)
def _definitions() -> dict[Path, bytes]:
    """Every file that defines or completes a task, unparsed."""
    return {path: path.read_bytes() for path in sorted(_root().rglob("*yaml")) if path.is_file()}


@lru_cache(maxsize=1)
def _names() -> dict[str, set[Path]]:
    """Name of a task, group or tag -> the folders whose files mention it as such."""
    names: dict[str, set[Path]] = {}
    for path, text in _definitions().items():
        for name in _NAMED.findall(text):
            names.setdefault(name.decode(), set()).add(path.parent)
        for single, several in _TAGGED.findall(text):
            for tag in [single] if single else re.findall(rb"[\w.:+-]+(?=[\"']?[ \t]*\r?$)", several, re.M):
                names.setdefault(tag.decode(), set()).add(path.parent)
    return names


def _folder(name: str) -> Path:
    """The innermost folder with all mentions of a name; the folder of all tasks if it has none."""
    folders = _names().get(name)
    return Path(os.path.commonpath(folders)) if folders else _root()


def _missing(index: dict[str, Any], name: str) -> Iterator[str]:
    """Members of a group, at any depth, that some file mentions but the index lacks."""
    config = index[name].cfg or {}
    for member, _ in _members(config):
        if member in index:
            yield from _missing(index, member)
        elif member in _names():
            yield member


def _members(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name, its own settings) of what a group lists, inside its inline groups too."""
    members = config.get("task")
    for item in members if isinstance(members, list) else []:
        if isinstance(item, str):
            yield item, {}
        elif isinstance(item.get("task"), list):
            yield from _members(item)
        else:
            settings = {key: value for key, value in item.items() if key not in ("task", "group")}
            yield str(item.get("task") or item.get("group")), settings


def _leaves(index: dict[str, Any], name: str, changes: dict[str, Any]) -> Iterator[Leaf]:
    from lm_eval.tasks._factory import GROUP_FIELD_NAMES
    from lm_eval.tasks._index import Kind

    entry = index.get(name)
    if entry is None:
        yield Leaf(name, {}, changes)
    elif entry.kind is Kind.TAG:
        for member in sorted(entry.tags):
            yield from _leaves(index, member, changes)
    elif entry.kind is Kind.GROUP:
        shared = {key: value for key, value in entry.cfg.items() if key not in GROUP_FIELD_NAMES}
        for member, own in _members(entry.cfg):
            yield from _leaves(index, member, {**shared, **changes, **own})
    else:
        yield Leaf(name, entry.cfg or {}, changes)
