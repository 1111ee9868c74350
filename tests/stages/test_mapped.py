"""`--device-map`: a run with weights on disk ends as one without; what cannot go with it is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from core.runs.artifacts import LOG
from core.spec.run import RunSpec
from tests.cli.calls import answer, refused
from tests.stages.steps import done, outcome

MAPPED = ["--device", "cpu", "--device-map", "auto"]


@pytest.mark.parametrize("how", ["none", "least_squares"])
def test_a_run_ends_as_one_whose_weights_are_together(tmp_path: Path, spec: RunSpec, how: str) -> None:
    asked = replace(spec, prune=replace(spec.prune, method="wifv", reconstruct=how))
    away = replace(asked, model=replace(asked.model, device_map="auto", max_memory="cpu=64KiB"))
    assert outcome(done(tmp_path / "away", away)) == outcome(done(tmp_path / "together", asked))


def test_by_command_the_log_says_where_weights_rest(
    tmp_path: Path, spec: RunSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second cut of the result, too: of files that were cut already."""
    runs = ["--runs-dir", str(tmp_path), *MAPPED, "--max-memory", "cpu=64KiB", "--method", "wanda"]
    texts = ["--ppl", spec.evaluate.text, "--window", "16", "--tokens", "128", "--no-efficiency"]
    texts += ["--calibration", spec.calibration.name, "--samples", "4", "--length", "16"]
    first = answer(capsys, ["prune", spec.model.source, "--sparsity", "0.2", *runs, *texts])
    second = answer(capsys, ["prune", first["run_dir"], "--sparsity", "0.1", *runs, *texts])
    assert second["params_after"] < first["params_after"] < first["params_before"]
    log = (Path(second["run_dir"]) / LOG).read_text(encoding="utf-8")
    assert re.search(r"MiB on disk; of 2 layers .* on disk. cpu computes, and is lent what rests", log)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "taylor_first"], "cannot go with taylor_first, which reads gradients: no gradient"),
        (["--method", "nuteprune"], "cannot go with method nuteprune, which trains: no gradient reaches"),
        (["--recover", "lora"], "cannot go with recovery by lora: no gradient reaches weights that rest"),
        (["--int8"], "cannot go with int8, which holds the model twice"),
        (["--target", "latency=-20%@1x8"], "cannot go with target latency=-20%@1x8: what is timed is"),
        (["--without-dependency", "--method", "l2"], "cannot go with without_dependency, which holds"),
        (["--executor", "slurm", "--gpus", "0"], "cannot go with --executor slurm and --gpus 0: there is no"),
        (["--max-memory", "cuda:7=1GiB"], "max_memory names cuda:7, which is not here; this machine has cpu"),
    ],
)
def test_what_cannot_go_with_it_is_one_line(
    tmp_path: Path,
    spec: RunSpec,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    asked = ["prune", spec.model.source, "--runs-dir", str(tmp_path / "runs"), *MAPPED]
    sized = [] if "--target" in arguments else ["--sparsity", "0.2"]
    assert said in refused(capsys, [*asked, *sized, *arguments])
    assert not (tmp_path / "runs").exists()
