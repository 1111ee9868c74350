"""The layout that the README draws: what may import what, and how much a folder and a file hold."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Bottom to top: a package or a module of this list imports only what stands before it.
ORDER = {
    "core": "errors option checked registry files cache spec methods graph plan results runs cluster devices "
    "surgery models capture criteria memory evaluate recover search nuteprune ship stages report cli engine "
    "export __main__",
    "pruneviz": "access arguments boundary housekeeping theme data figures context scripts actions "
    "components tabs present api ui serve __main__",
}
HEAVY = {"torch", "transformers", "peft", "lm_eval", "accelerate", "datasets"}
PAGE = {"gradio", "plotly", "pruneviz"}


@cache
def modules() -> dict[str, Path]:
    """Every module of both packages by its dotted name."""
    found = {}
    for path in [*ROOT.glob("core/**/*.py"), *ROOT.glob("pruneviz/**/*.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """Whatever a file imports, wherever in it: `a.b` of both `import a.b` and `from a.b import c`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}:{node.lineno} imports relatively"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in modules() else node.module for name in names)


@cache
def arrows() -> nx.DiGraph:
    """Who imports whom, of our own modules; the lazy names that a package offers are no arrows."""
    drawn = nx.DiGraph()
    for name, path in modules().items():
        if name in ORDER:
            continue  # the public surface stands in front of everything
        drawn.add_edges_from((name, other) for other in imported(path) if other in modules())
    return drawn


def tops(name: str) -> set[str]:
    """The packages a module of ours loads from, ours and others', by the first part of their names."""
    return {other.partition(".")[0] for other in imported(modules()[name])}


def test_no_module_imports_itself_through_others():
    assert list(nx.simple_cycles(arrows())) == []


def test_nothing_imports_what_stands_above_it():
    rank = {f"{top}.{room}": n for top, rooms in ORDER.items() for n, room in enumerate(rooms.split())}
    room = {name: ".".join(name.split(".")[:2]) for name in modules()}
    assert {room[name] for name in modules()} - set(ORDER) == set(rank), "a room has no place in the order"
    upward = [
        f"{a} imports {b}"
        for a, b in arrows().edges
        if room[a].split(".")[0] == room[b].split(".")[0] and rank[room[a]] < rank.get(room[b], -1)
    ]
    assert upward == []


def test_the_engine_knows_no_page_and_the_page_no_model():
    core = [f"{name} imports {' '.join(tops(name) & PAGE)}" for name in modules() if name[:4] == "core"]
    page = [f"{name} imports {' '.join(tops(name) & HEAVY)}" for name in modules() if name[:4] != "core"]
    assert [line for line in core + page if not line.endswith("imports ")] == []


def test_few_modules_stand_directly_in_the_engine():
    assert len([path for path in ROOT.glob("core/*.py") if path.stem != "__init__"]) <= 10


def test_packages_are_two_levels_deep_and_hold_a_handful_of_files():
    assert [name for name in modules() if name.count(".") > 2] == []
    files = Counter(path.parent for path in modules().values() if path.name != "__init__.py")
    outside = {str(folder.relative_to(ROOT)): n for folder, n in files.items() if not 4 <= n <= 27}
    assert outside == {}


@pytest.mark.parametrize("folder", ["core", "pruneviz", "tests"])
def test_no_file_is_longer_than_300_lines(folder):
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in ROOT.glob(f"{folder}/**/*.py")}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > 300} == {}


def test_no_module_is_called_after_nothing_in_particular():
    banned = {"utils", "util", "helpers", "common", "misc"}
    assert [name for name in modules() if banned & set(name.split("."))] == []


def drawn(top: str) -> str:
    """The lines of the README's tree that stand below a top level folder."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.split(r"\n```|\n\w+(?=/|\.py)", readme.split(f"\n{top}/ ", 1)[1])[0]


@pytest.mark.parametrize("top", ORDER)
def test_the_readme_draws_every_room_from_the_ground_up(top):
    rooms = [room for room in ORDER[top].split() if (ROOT / top / room).is_dir()]
    names = re.findall(r"(?<=  )(\w+)/ ", drawn(top))
    assert [name for name in names if name in rooms] == rooms


def test_the_readme_names_files_that_are_there():
    for top in ("core", "pruneviz", "assets", "docs"):
        files = {path.name for path in (ROOT / top).rglob("*.*")}
        assert set(re.findall(r"\b\w+\.(?:py|js|md)\b", drawn(top))) - files == set(), top
