from __future__ import annotations

import json
import subprocess

import pytest

from core.errors import LaunchError
from pruneviz import methods

ENTRY = {"name": "l2", "paper": "P", "equation": "Eq. 1", "needs": [], "summary": "S.", "options": {}}


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(methods, "_known", [])


def test_the_command_line_is_asked_once(monkeypatch):
    calls = []

    def run(command, **_):
        calls.append(command)
        return subprocess.CompletedProcess(command, 0, json.dumps({"methods": [ENTRY]}), "")

    monkeypatch.setattr(subprocess, "run", run)
    assert methods.find("l2") is None
    assert methods.all_methods() == methods.all_methods()
    assert len(calls) == 1 and methods.names() == ["l2", "nuteprune", "manual"]
    assert methods.find("l2") == methods.Method("l2", "P", "Eq. 1", "S.", needs_data=False)


def test_until_then_the_usual_ones_are_offered():
    assert "taylor_first" in methods.names()


def test_a_list_that_cannot_be_read_is_an_error_in_words(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, "no json", ""))
    with pytest.raises(LaunchError, match="list of methods cannot be read"):
        methods.all_methods()
