"""Calls of the command line, and what it says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.cli.app import main


def answer(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> dict[str, Any]:
    """The one JSON object on stdout."""
    capsys.readouterr()
    code = main([*arguments, "--json"])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    found = json.loads(shown.out)
    assert isinstance(found, dict)
    return found


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line on stderr of a request that is wrong."""
    capsys.readouterr()
    code = main(arguments)
    shown = capsys.readouterr()
    assert (code, shown.out) == (2, ""), shown.err
    assert shown.err.count("\n") == 1 and shown.err.endswith("\n"), shown.err
    return shown.err
