"""`--device-map`: a run with weights on disk ends as one without; what cannot go with it is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from core.devices.lending import Spread
from core.errors import StopRequested
from core.models import load as loading
from core.runs import launch
from core.runs.artifacts import LOG
from core.runs.events import Event
from core.runs.status import read_status
from core.spec.run import RunSpec
from core.stages.worker import execute
from tests.cli.calls import answer, refused
from tests.devices.two_devices import AWAY, two_devices
from tests.stages.steps import again, done, outcome

MAPPED = ["--device", "cpu", "--device-map", "auto"]


#: A refit, a search under biases, a second cut of what the first has left, and layers that are numbered anew.
WAYS: list[dict[str, Any]] = [
    {"reconstruct": "least_squares"},
    {"scope": "searched", "search_tokens": 32, "search_rounds": 1},
    {"rounds": 2, "scope": "local"},
    {"drop": "layer=1", "reconstruct": "none"},
]


@pytest.fixture
def second_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let two thirds of every model that is loaded with a map rest on a device that is made up."""

    def planned(model: nn.Module, *_: object) -> Spread:
        names = [name for name, _ in model.named_parameters()]
        return Spread("cpu", dict.fromkeys(names[len(names) // 3 :], AWAY))

    monkeypatch.setattr(loading, "planned", planned)
    with two_devices():
        yield


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, spec: RunSpec) -> list[Any]:
    """What each way ends in where all weights are in one place."""
    return [outcome(done(tmp_path_factory.mktemp("whole"), asking(spec, way))) for way in WAYS]


def asking(spec: RunSpec, way: dict[str, Any], **model: str) -> RunSpec:
    """The run with `wifv`, pruned this way."""
    timed = replace(spec.evaluate, efficiency="rounds" in way)
    pruned = replace(spec.prune, **{"method": "wifv", "reconstruct": "bias", **way})
    return replace(spec, prune=pruned, evaluate=timed, model=replace(spec.model, **model))


@pytest.mark.parametrize("number", range(len(WAYS)))
def test_a_run_ends_as_one_whose_weights_are_together(
    tmp_path: Path, spec: RunSpec, number: int, together: list[Any], second_device: None
) -> None:
    plan, metrics, samples = outcome(done(tmp_path, asking(spec, WAYS[number], device_map="auto")))
    expected, measured, said = together[number]
    assert (plan, samples) == (expected, said)
    assert metrics["ppl_after"] == pytest.approx(measured["ppl_after"], rel=1e-5)
    assert metrics["kl_after"] == pytest.approx(measured["kl_after"], rel=1e-4)


def test_analyses_and_measuring_go_with_it(tmp_path: Path, spec: RunSpec, second_device: None) -> None:
    explored = replace(spec, goal="explore", explore=replace(spec.explore, criteria=("wifv", "l2")))
    explored = replace(explored, explore=replace(explored.explore, sensitivity_criterion="l2"))
    for asked in (explored, replace(spec, goal="evaluate")):
        run_dir = done(tmp_path, replace(asked, model=replace(asked.model, device_map="auto")))
        assert read_status(run_dir).state == "finished"


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_weights_elsewhere(
    tmp_path: Path, spec: RunSpec, together: list[Any], second_device: None
) -> None:
    """After the first of two rounds: what it left is read from disk, and rests again."""
    run_dir = launch.create(tmp_path, asking(spec, WAYS[2], device_map="auto"), mine=True)

    def stop_there(event: Event) -> None:
        if event.type == "message" and event.data.get("text", "").startswith("Round 2"):
            raise StopRequested("here")

    with pytest.raises(StopRequested):
        execute(run_dir, stop_there)
    again(run_dir)
    assert outcome(run_dir)[0] == together[2][0]


def test_on_disk_it_is_the_same_to_the_bit(tmp_path: Path, spec: RunSpec, together: list[Any]) -> None:
    asked = asking(spec, WAYS[0], device_map="auto", max_memory="cpu=64KiB")
    assert outcome(done(tmp_path, asked)) == together[0]


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
