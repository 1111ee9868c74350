"""`make bench [ARGS="start models"]`: measure every goal and print the table for docs/measured.md."""

from __future__ import annotations

import importlib
import os
import platform
import sys

from tests.bench.figure import Figure

BENCHES = (
    "start",
    "models",
    "sensitivity",
    "search",
    "capture",
    "graph",
    "benchmarks",
    "capitals",
    "efficiency",
    "latency",
    "nuteprune",
    "browsers",
    "large",
    "reconstruct",
    "recover",
    "ship",
    "cluster",
    "gpu",
)
#: Measured only where they are named, with what they are given: how good models are can take days and has no
#: goal here, visitors stay for half an hour.
LONG = ("quality", "visitors")


def main(names: list[str]) -> int:
    """Run the named benches, or all; prints as it goes. Exit code 1 if a goal is missed.

    Args:
        names: of benches, and `name=value` for those in `LONG`.
    """
    figures: list[Figure] = []
    given = dict(name.split("=", 1) for name in names if "=" in name)
    names = [name for name in names if "=" not in name]
    if strange := [name for name in names if name not in (*BENCHES, *LONG)]:
        print(f"No bench {', '.join(strange)}; there are {', '.join((*BENCHES, *LONG))}.", file=sys.stderr)
        return 2
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n")
    print("| figure | measured | goal | | what was measured |\n|---|---|---|---|---|")
    for name in names or BENCHES:
        for figure in importlib.import_module(f"tests.bench.{name}").run(**(given if name in LONG else {})):
            figures.append(figure)
            print(figure.row(), flush=True)
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
