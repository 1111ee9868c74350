"""Saved folders of eight families in a Python that has torch and transformers, and nothing of this project.

`PRUNEVIZ_PLAIN_PYTHON` names such a Python; without it the tests' own reads them, kept from the project.
`python -m tests.ship.test_alone FOLDER RUN...` writes those folders, and what is expected of those of runs.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from core.export import from_pretrained
from core.graph.discover import discover
from core.models.saved import save
from core.plan.cost import with_costs
from core.plan.records import PruningPlan
from core.surgery.operate import operate
from tests.graph.families import build
from tests.surgery.test_contract import KINDS, cases

FAMILIES = ("llama", "qwen3", "gpt2", "bloom", "phi3", "falcon_grouped", "gemma3", "mixtral")
SCRIPT = Path(__file__).parent / "alone.py"


@torch.no_grad()
def expect(folder: Path) -> None:
    """Write what the run's own model computes beside its folder."""
    model: Any = from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, model.config.get_text_config().vocab_size, (2, 7), generator=generator)
    ask = {"attention_mask": torch.ones_like(ids[:1]), "do_sample": False}
    told = model.generate(ids[:1], min_new_tokens=8, max_new_tokens=8, **ask)
    values = {"ids": ids, "logits": model(ids).logits, "tokens": told[0, ids.shape[1] :].contiguous()}
    save_file(values, folder.with_name(f"{folder.name}.expected.safetensors"))


def write(out: Path, family: str) -> Path:
    """A tiny model of a family, every kind of unit gone from it somewhere, as a run saves it."""
    model = build(family).float()
    graph, removed = discover(model, name=family), cases(family)["together"]
    plan = with_costs(graph, PruningPlan(removed, family), graph.of_kind(*KINDS))
    save(operate(copy.deepcopy(model), graph, removed), None, graph, plan, out / family, facts={})
    expect(out / family)
    return out / family


def written(out: Path, runs: list[str]) -> list[Path]:
    """Folders of all families, and of runs, with what their own models compute beside them."""
    folders = [write(out, family) for family in FAMILIES]
    for run in runs:
        expect(Path(run) / "model")
    return [*folders, *(Path(run) / "model" for run in runs)]


@pytest.mark.slow
def test_eight_families_are_read_by_transformers_alone(tmp_path: Path) -> None:
    python = os.environ.get("PRUNEVIZ_PLAIN_PYTHON", sys.executable)
    folders = [str(folder) for folder in written(tmp_path, [])]
    told = subprocess.run([python, "-I", SCRIPT, *folders], capture_output=True, text=True, check=True)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in told.stdout.splitlines()[2:]]
    print(told.stdout)
    assert [row[0] for row in rows] == [*FAMILIES]
    for row in rows:
        assert float(row[2]) <= 1e-5 and row[3:5] == ["same", "same"] and float(row[5]) <= 1e-5, row


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True)
    print(*written(out, sys.argv[2:]))
