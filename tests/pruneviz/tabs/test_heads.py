"""What the Heads tab asks the engine; the browser test asks one for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import LaunchError, StopRequested
from pruneviz.context import AppContext
from pruneviz.tabs.heads import _attention


class Engine:
    """Breaks as told."""

    def __init__(self, breaks: Exception) -> None:
        self.breaks = breaks

    def attention(self, source: str, text: str, layer: int, heads: list[int]) -> dict[str, Any]:
        raise self.breaks


@pytest.mark.parametrize(
    ("breaks", "error"),
    [(StopRequested("Stopped while demo was being read."), False), (LaunchError("It has died."), True)],
)
def test_a_stop_is_no_error(tmp_path: Path, breaks: Exception, error: bool) -> None:
    app = AppContext(tmp_path)
    app._engine = Engine(breaks)  # type: ignore[assignment]
    said, answer = list(_attention(app, "demo", "0:1,2", "Some words"))[-1]
    assert str(breaks) in said and not answer
    assert ('role="alert"' in said) == error
