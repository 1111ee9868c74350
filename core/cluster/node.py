"""What runs on a node before the worker does: whether it has what the run needs.

It is sent there by value, so that it can say what is missing: nothing but the standard library is imported
before that was looked at.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import socket
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def work(root: str, run_dir: str, module: str, keeper: list[Any], versions: dict[str, str]) -> dict[str, str]:
    """Work on a run's folder on this node.

    Args:
        root: the folder that holds the workbench; module: its worker, whose `kept` does the work.
        keeper: host, pid and start time of the process that waits for this one.
        versions: those of the machine that started the run; results must not depend on the node.

    Returns:
        {"refused": why this node cannot}, or nothing: then the run's status says how it went.
    """
    where = socket.gethostname()
    for folder, holds in ((root, "workbench's"), (run_dir, "runs")):
        if not os.path.isdir(folder):
            return {
                "refused": f"Node {where} has no folder {folder}: the {holds} folder must be on a disk that "
                "all nodes share, under the same path; start the dashboard or the run with one that is."
            }
    own = versions_in(root)
    differ = [
        f"{name} {own.get(name) or 'missing'} there, {version} here"
        for name, version in versions.items()
        if own.get(name) != version
    ]
    if differ:
        return {
            "refused": f"Node {where} has other versions: {'; '.join(differ)}. Use one environment on all "
            "machines."
        }
    sys.path.insert(0, root)
    log = os.open(os.path.join(run_dir, "log.txt"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    importlib.import_module(module).kept(Path(run_dir), tuple(keeper))
    return {}


def work_and_tell(tell: str, call: dict[str, Any]) -> None:
    """The same, and its answer as JSON in a file: nobody has to read a pickle."""
    answer = work(**call)
    with open(f"{tell}.part", "w", encoding="utf-8") as file:
        json.dump(answer, file)
    os.replace(f"{tell}.part", tell)


def versions_in(root: str) -> dict[str, str]:
    """What results depend on: python, libraries without the name of a build, and the workbench's own code."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in ("torch", "transformers"):
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            found[name] = ""
    code = hashlib.sha256()
    for path in sorted(Path(root, "core").rglob("*.py")):
        code.update(str(path.relative_to(root)).encode() + path.read_bytes())
    found["workbench"] = code.hexdigest()[:12]
    return found
