"""onnxruntime computes with both graphs what torch computes; the writer compares them itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from core.errors import ModelError
from core.ship import onnx
from core.spec.export import ExportSpec
from tests.ship.made import RAGGED, parcel


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_prefill_and_decode_are_those_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="no onnxruntime: pip install -r requirements-export.txt")
    _, given = parcel(tmp_path, "llama", RAGGED, to="onnx")
    seen: list[float] = []
    compared = onnx._compared
    monkeypatch.setattr(onnx, "_compared", lambda *parts: seen.append(compared(*parts)) or seen[0])
    onnx.write(given)
    assert {"prefill.onnx", "decode.onnx"} <= {path.name for path in given.out.iterdir()}
    assert 0 < seen[0] < 1e-4


def test_packages_that_are_missing_are_named_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else there(name))
    with pytest.raises(ModelError, match=r"ONNX needs onnx.*requirements-export\.txt"):
        onnx.check_packages(ExportSpec(to="onnx"))
