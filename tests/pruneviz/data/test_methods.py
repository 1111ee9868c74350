from __future__ import annotations

import json
import subprocess

import pytest

from core.errors import LaunchError
from pruneviz.data import methods

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


def test_what_is_offered_at_once_keeps_its_place(monkeypatch):
    before = methods.names()
    assert "taylor_first" in before and {"nuteprune", "manual"} <= set(before)
    everything = ["wanda", "random", "l1", "wifv", "taylor_first", "l2"]
    monkeypatch.setattr(methods, "_known", [methods.Method(name) for name in everything])
    assert methods.names() == [*before, "wanda", "wifv"]


def test_a_list_that_cannot_be_read_is_an_error_in_words(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, "no json", ""))
    with pytest.raises(LaunchError, match="list of methods cannot be read"):
        methods.all_methods()
