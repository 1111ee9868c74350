"""Options that come from fields: each command has them, and the page of docs lists every one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import typer

from core.cli.app import COMMANDS, app, main
from core.cli.methods import options_page
from core.cli.options import help_of
from core.option import Option
from core.runs.command_line import TAKES
from core.runs.launch import ROOT
from core.spec.fields import OPTIONS

PAGE = ROOT / "docs" / "options.md"


def test_the_page_of_options_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--markdown"]) == 0
    written = capsys.readouterr().out
    assert (
        written.rstrip()
        == options_page(typer.main.get_command(app)).rstrip()
        == PAGE.read_text(encoding="utf-8").rstrip()
    )
    for path in set(OPTIONS) - {"extra"}:
        assert written.count(f"| `{path}` |") == 1
    assert written.count("## the run itself") == 1
    for flag in ("--strategy", "--plan", "--detach", "--runs-dir", "--json", "--between", "--top-p", "--out"):
        assert sum(line.startswith(f"| `{flag}` |") for line in written.splitlines()) == 1


def test_no_summary_is_cut_and_no_default_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["runs", "--help"]):
        assert main(words) == 0 and "..." not in capsys.readouterr().out.partition("Commands:")[2]
    assert main(["methods"]) == 0
    assert "--set stage_1=true" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ([], "--rank belongs to --recover lora or distill; add one, or leave out --rank."),
        (["--method", "nuteprune"], "for the training of nuteprune write --set lora_rank=…."),
    ],
)
def test_an_option_of_a_training_that_is_not_made_is_refused(
    capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    assert main(["prune", "demo", "--rank", "4", *more]) == 2
    assert told in capsys.readouterr().err


def fields() -> Iterator[tuple[str, str, Option]]:
    return ((command, path, OPTIONS[path]) for command, paths in TAKES.items() for path in paths)


@pytest.mark.parametrize("command", list(TAKES))
def test_help_says_of_every_field_what_it_does_and_its_default(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert command in COMMANDS and main([command, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for other, _, option in fields():
        if other == command:
            said = help_of(option)
            assert option.help and f"Default: {option.default_words}." in said
            assert option.flag.partition("/")[0] in shown
            assert said.replace(" ", "") in shown.replace(" ", "")  # long words are broken


def test_no_command_takes_one_flag_for_two_fields() -> None:
    flags = [(command, option.flag) for command, _, option in fields()]
    assert len(flags) == len(set(flags)) and all(flag for _, flag in flags)
