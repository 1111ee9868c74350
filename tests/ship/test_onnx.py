"""onnxruntime computes with both graphs what torch computes; the writer compares them itself.

The tests of graphs are slow, and need `requirements-export.txt`.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from core.errors import ModelError
from core.ship import onnx
from core.spec.export import ExportSpec
from tests.ship.made import RAGGED, parcel

#: Uneven heads and widths; whole blocks that are gone, the first of those that count tokens among them.
PLANS = {
    "ragged": RAGGED,
    "layer": {"L00.layer": (0,), "L01.query_head": (1,)},
    "attention": {"L00.attention_block": (0,), "L02.attention_block": (0,)},
    "feed-forward": {"L01.ffn_block": (0,)},
}


@torch.no_grad()
def greedy(model: Any, ids: torch.Tensor, count: int) -> list[int]:
    """The likeliest token each time, without a cache and whatever ends a text."""
    told = ids
    for _ in range(count):
        told = torch.cat([told, model(told).logits[:, -1:].argmax(-1)], dim=1)
    tokens: list[int] = told[0, ids.shape[1] :].tolist()
    return tokens


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PLANS)
def test_prefill_and_decode_are_those_of_torch_and_the_printed_program_goes_on_as_torch_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="no onnxruntime: pip install -r requirements-export.txt")
    model, given = parcel(tmp_path, "llama", PLANS[name], to="onnx", num_hidden_layers=3)
    seen: list[float] = []
    compared = onnx._compared
    monkeypatch.setattr(onnx, "_compared", lambda *parts: seen.append(compared(*parts)) or seen[0])
    onnx.write(given)
    assert {"prefill.onnx", "decode.onnx"} <= {path.name for path in given.out.iterdir()}
    assert 0 < seen[0] < 1e-4
    program = "\n".join(onnx.use(given.subject, given.out, given.options))
    told = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == greedy(model, torch.tensor([[1, 2, 3]]), 24)


def test_the_page_about_exports_shows_the_program_that_is_printed(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{}")
    program = onnx.use(cast(Any, None), tmp_path, ExportSpec(to="onnx"))
    shown = "\n".join(program).replace(repr(str(tmp_path)), "FOLDER")
    compile(shown, "program", "exec")
    assert f"```python\n{shown}\n```" in (Path(__file__).resolve().parents[2] / "docs/export.md").read_text(
        "utf-8"
    )


def test_packages_that_are_missing_are_named_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else there(name))
    with pytest.raises(ModelError, match=r"ONNX needs onnx.*requirements-export\.txt"):
        onnx.check_packages(ExportSpec(to="onnx"))
