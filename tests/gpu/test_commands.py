"""Every command, on a card, in both types, for six families."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.cli.calls import answer
from tests.gpu.conftest import FAMILIES

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_command_runs(
    family: str,
    dtype: str,
    device: str,
    folders: dict[str, Path],
    texts: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, where = str(folders[family]), ["--device", device, "--dtype", dtype]
    runs = [*where, "--runs-dir", str(tmp_path)]
    data = ["--calibration", str(texts[0]), "--samples", "4", "--length", "16", *runs]
    ppl = ["--ppl", str(texts[1]), "--window", "16", "--tokens", "64"]
    measure = [*ppl, "--prompt", "the a", "--max-new-tokens", "3"]
    recover = ["--recover-data", str(texts[0]), "--recover-length", "16", "--batch", "4", "--held", "2"]

    def asked(*arguments: str) -> dict[str, object]:
        return answer(capsys, list(arguments))

    assert asked("groups", model, *where)["kinds"]
    assert asked("similarity", model, *data, "--tau", "1")["layers"]
    other = "l2" if family == "mixtral" else "wifv"  # the inputs of a stack of experts cannot be watched
    assert asked("score", model, *data, "--criterion", "taylor_first", "--criterion", other)["criteria"]
    few = ["--ppl", str(texts[1]), "--window", "16", "--ratio-tokens", "32", "--ratio-by", "l2"]
    assert asked("sensitivity", model, *data, *few)["layers"]
    ranked = ["--method", "taylor_first", "--sparsity", "0.2", "--kinds", "ffn_channel"]
    kinds = ranked if family == "mixtral" else ranked[:-2]
    pruned = asked("prune", model, *data, *measure, *kinds)
    assert pruned["params_after"] < pruned["params_before"]
    run = str(pruned["run_dir"])
    refit = ["--method", "wifv", "--sparsity", "0.2", "--reconstruct", "bias"]
    if family != "mixtral":
        asked("prune", model, *data, *ppl, "--no-efficiency", *refit)
    learned = ["--method", "nuteprune", "--sparsity", "0.3", "--set", "steps=2", "--set", "held=2"]
    if family != "mixtral":
        asked("prune", model, *data, *ppl, "--no-efficiency", *learned)
    for method in ("lora", "distill"):
        steps = ["--recover", method, "--steps", "2", "--gradient-checkpointing", "on"]
        asked("recover", run, *recover, *steps, *runs)
    assert asked("evaluate", run, *measure, *runs)["ppl"]
    assert asked("generate", run, "--prompt", "the a of", "--max-new-tokens", "4", *where)["text"] is not None
    sweep = ["--methods", "l2,random", "--sparsities", "0.1,0.3", "--seeds", "0"]
    assert asked("sweep", model, *data, *ppl, *sweep)["points"]
    if device == "cuda":
        torch.cuda.synchronize()
