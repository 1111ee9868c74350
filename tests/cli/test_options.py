"""Options that come from fields: each command has them, and the page of docs lists every one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.cli.app import COMMANDS, main
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
    assert written.rstrip() == options_page().rstrip() == PAGE.read_text(encoding="utf-8").rstrip()
    for path in OPTIONS:
        assert written.count(f"| `{path}` |") == 1


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
