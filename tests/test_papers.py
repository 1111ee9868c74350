"""docs/papers.md: nothing of the papers is missing, and every name in it exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from core.criteria import CRITERIA
from core.methods import METHODS
from core.spec.choices import RECONSTRUCTIONS, SCOPES, STRATEGIES
from core.spec.fields import OPTIONS
from core.spec.recover import PRESETS as RECIPES
from core.spec.recover import RECOVERIES, TARGETS
from core.spec.texts import IN_PARTS, NAMED

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
#: Paper -> how many equations, algorithms, figures and tables it has, counted in the papers themselves.
COUNTS = {
    "LLM-Pruner": {"Eq.": 8, "Algorithm": 0, "Figure": 6, "Table": 21},
    "Greedy Output Approximation": {"Eq.": 3, "Algorithm": 4, "Figure": 5, "Table": 5},
    "Adaptive Estimation Fusion": {"Eq.": 13, "Algorithm": 1, "Figure": 2, "Table": 8},
    "NutePrune": {"Eq.": 11, "Algorithm": 0, "Figure": 3, "Table": 18},
}
#: Options of the command line that are no field of a spec.
OTHERS = {"--between", "--strategy", "--preset"}
#: What an option of the command line may be given here.
ACCEPTED: dict[str, Any] = {
    "--method": {*CRITERIA.names(), *METHODS.names()},
    "--scope": SCOPES,
    "--strategy": STRATEGIES,
    "--reconstruct": RECONSTRUCTIONS,
    "--recover": RECOVERIES,
    "--targets": TARGETS,
    "--recover-data": {*NAMED, *IN_PARTS},
    "--calibration": {*NAMED, *IN_PARTS, "self"},
    "--preset": {*RECIPES, *METHODS["nuteprune"].component.presets},
}
#: Words in code that are neither options nor names of components.
WORDS = {"acc", "acc_norm", "samples.json", "python -m core", "python -m core evaluate MODEL", "LLaMA-7B"}


def items(paper: str) -> list[str]:
    """The first cell of every row of a paper's table."""
    (section,) = re.findall(rf"\n## {re.escape(paper)} \(arXiv [\d.]+\)\n(.*?)(?=\n## |\Z)", TEXT, re.S)
    return re.findall(r"^\| ([^|]+?) \|", section, re.M)


@pytest.mark.parametrize("paper", COUNTS)
def test_every_item_of_a_paper_has_its_row(paper: str) -> None:
    rows = items(paper)
    for kind, count in COUNTS[paper].items():
        numbered = [row for row in rows if re.fullmatch(rf"{re.escape(kind)} \d+", row)]
        numbers = [int(row.removeprefix(f"{kind} ")) for row in numbered]
        assert numbers == list(range(1, count + 1)), f"{paper}, {kind}"


def test_every_row_says_where_it_is_and_how_it_differs() -> None:
    for line in TEXT.splitlines():
        if re.match(r"\| (Eq\.|Algorithm|Figure|Table|Section|Appendix) ", line):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 3 and all(cells), line


def spans() -> list[str]:
    """Everything that stands in code."""
    return list(dict.fromkeys(re.findall(r"`([^`\n]+)`", TEXT)))


@pytest.mark.parametrize("span", spans())
def test_every_name_exists(span: str) -> None:
    if span in WORDS:
        return
    if span.startswith("--"):
        check_options(span.split())
    elif "/" in span:
        assert (ROOT / span).is_file(), span
    elif span.startswith(("core.", "pruneviz.")):
        module, name = span.rsplit(".", 1)
        assert hasattr(importlib.import_module(module), name), span
    else:
        names = {
            *CRITERIA.names(),
            *METHODS.names(),
            *RECONSTRUCTIONS,
            *IN_PARTS,
            *METHODS["nuteprune"].component.presets,
        }
        assert span in names, span


def check_options(words: list[str]) -> None:
    """Each option exists, and takes what stands after it."""
    flags = {flag for option in OPTIONS.values() for flag in option.flag.split("/")} | OTHERS
    for word, value in zip(words, [*words[1:], ""], strict=True):
        if not word.startswith("--"):
            continue
        assert word in flags, word
        if word in ACCEPTED and value and not value.startswith("--"):
            assert value in ACCEPTED[word], f"{word} {value}"
        if word == "--set":
            name, _, given = value.partition("=")
            components = [entry for entry in (*CRITERIA, *METHODS) if name in entry.options]
            assert components, value
            components[0].options[name].read(given)


def test_a_name_that_is_gone_would_be_seen() -> None:
    for span in ("--layer 4:30", "--preset paper-7b", "--set gaps=1", "core/x.py", "taylor_third"):
        with pytest.raises(AssertionError):
            test_every_name_exists(span)


def test_the_readme_and_the_list_of_commands_are_linked() -> None:
    assert "](published.md)" in TEXT
    assert "](docs/papers.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
