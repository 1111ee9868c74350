"""What tests of the evaluation share."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture
def offline(monkeypatch, tmp_path_factory):
    """No test here may reach a network; the bundled tasks are made once for all of them."""

    def refuse(*_):
        raise OSError("a benchmark test tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("PRUNEVIZ_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
