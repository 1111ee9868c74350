"""Every command in the docs is one: the real parser takes it, and what it asks for is checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from core.cli.app import app, main
from core.spec.run import RunSpec
from core.stages.early import check_method, check_rounds
from pruneviz.arguments import parse
from tests.browser.driver import free_port
from tests.documented import CORE, ROOT, commands, pages

#: What stands for something that the reader puts there.
PUT = {"...": "l2", "MODEL": "demo", "PARAMETER": "a.weight"}
#: Commands that make a run, in whose modules it would start.
RUNS = ("prune", "recover", "sweep", "explore", "score", "similarity", "sensitivity", "evaluate", "export")


def of_the_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]) -> None:
    """Parsed, and what it asks for is checked as far as no model is needed."""
    told: list[RunSpec] = []

    def capture(runs_dir: Path, spec: RunSpec, *rest: object) -> None:
        told.append(spec)
        raise KeyboardInterrupt

    for name in ("prune", "recover", "sweep", "explore", "evaluate", "export"):
        monkeypatch.setattr(f"core.cli.{name}.foreground", capture)
    words = [PUT.get(word, word).replace("<id>", "id").partition("|")[0] for word in words[len(CORE) :]]
    if "--help" in words:
        assert main(words) == 0, words
        return
    if words[0] not in RUNS or len(words) == 1:  # a command by its name alone, in a sentence
        parsed(words)
        return
    assert main(words) == 130, words
    check_method(told[0].settled())
    check_rounds(told[0].settled())


def parsed(words: list[str]) -> None:
    """Fails where the parser does not take them."""
    found: Any = typer.main.get_command(app)
    rest = words
    while getattr(found, "commands", None):
        found, rest = found.commands[rest[0]], rest[1:]
    try:
        if len(words) > 1:
            found.make_context(found.name, rest)
    except TyperException as error:
        pytest.fail(f"{words}: {error.format_message()}")


def of_make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]) -> None:
    """A target that is there."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    targets = next(line for line in makefile if line.startswith(".PHONY:")).split()
    assert words[1] in targets, words


def of_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]) -> None:
    """Options of the dashboard, with a file for its login."""
    (login := tmp_path / "login").write_text("me:secret\n")
    login.chmod(0o600)
    given = [str(login) if word.startswith("~/") else word for word in words[2:]]
    parse([*given, "--port", str(free_port()), "--runs-dir", str(tmp_path / "runs")])


def of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]) -> None:
    """Files and modules that other programs are given."""
    for word in words[1:]:
        if word.startswith("tests.") or word.startswith("core."):
            assert (ROOT / word.replace(".", "/")).with_suffix(".py").is_file(), word
        elif word.endswith((".py", ".txt")):
            assert (ROOT / word).is_file(), word


def of_a_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]) -> None:
    """What torchrun or accelerate launch are to start, which is a command of the engine."""
    of_the_engine(monkeypatch, tmp_path, ["python", *words[words.index("-m") :]])


def kind_of(words: list[str]) -> Callable[[pytest.MonkeyPatch, Path, list[str]], None] | None:
    """What tests a command; None where nothing does."""
    if words[:3] == CORE:
        return of_the_engine
    known = {"make": of_make, "python": of_the_page, ".venv/bin/pip": of_others, "pip": of_others}
    known |= {"torchrun": of_a_launcher, "accelerate": of_a_launcher}
    known |= {".venv/bin/python": of_others, "PLAIN/bin/python": of_others}
    return known.get(words[0])


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_command_is_one(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for words in commands(page):
        check = kind_of(words)
        assert check is not None, f"nothing tests {' '.join(words)} of {page.name}"
        check(monkeypatch, tmp_path, words)


def test_a_wrong_command_would_be_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for wrong in ("groups demo --betwen a b", "runs lst", "methods a"):
        with pytest.raises((pytest.fail.Exception, KeyError)):
            of_the_engine(monkeypatch, tmp_path, [*CORE, *wrong.split()])
    with pytest.raises(AssertionError):
        of_the_engine(monkeypatch, tmp_path, [*CORE, "prune", "demo", "--sparsity", "20"])
    assert kind_of(["docker", "run"]) is None
