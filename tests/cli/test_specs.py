"""A command line and the spec that it means, both ways; what needs no model is quick."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from core import methods
from core.cli.app import main
from core.option import options_of
from core.runs import launch
from core.runs.command_line import command_line
from core.spec.calibration import DataSpec
from core.spec.efforts import EFFORTS, with_effort
from core.spec.evaluate import EvalSpec
from core.spec.explore import ExploreSpec
from core.spec.model import ModelSpec
from core.spec.nuteprune import Settings
from core.spec.nuteprune_presets import PRESETS
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec

#: What the preset `demo` says otherwise, as it is without a preset.
UNLIKE_DEMO = {name: options_of(Settings)[name].value for name in PRESETS["demo"]["prune.options"]}
SPECS = [
    RunSpec(),
    RunSpec(
        name="two words",
        seed=7,
        model=ModelSpec("a folder", "cpu", "bfloat16", True),
        calibration=DataSpec("my text.txt", 3, 9),
        prune=PruneSpec(
            "l2", 0.125, "local", ("kv_group",), "1:2", {"a": 1, "b": 0.5, "c": True, "d": "x y", "e": 1e-06}
        ),
        evaluate=EvalSpec("other.txt", 32, 64, ("it's", "b"), 5, False),
    ),
    RunSpec(prune=PruneSpec("manual", units={"L01.ffn_channel": (4,), "L00.query_head": (0, 1, 3)})),
    RunSpec(evaluate=EvalSpec(prompts=())),
    RunSpec(
        prune=PruneSpec(
            scope="standardised",
            layers="4-30",
            multiple=64,
            max_share=0.5,
            kind_sparsity={"ffn_channel": 0.31234567891, "query_head": 0.1},
        )
    ),
    methods.with_preset(RunSpec(), "nuteprune", "paper-7b-20", None),
    methods.with_preset(RunSpec(calibration=DataSpec(samples=3)), "nuteprune", "demo", 20),
    RunSpec(
        calibration=DataSpec(samples=8),
        prune=PruneSpec("nuteprune", 0.3, options={**UNLIKE_DEMO, "stage_2": False}),
    ),
    with_effort(RunSpec(prune=PruneSpec(sparsity=0.3)), "minutes"),
    RunSpec(goal="evaluate", model=ModelSpec("x"), evaluate=EvalSpec(tokens=512)),
    RunSpec(goal="explore", explore=ExploreSpec(("groups",), config_only=True)),
    RunSpec(
        goal="explore",
        explore=ExploreSpec(
            ("groups", "sensitivity"), ("l1", "l2"), ("both", "head"), (0.25, 0.5), "l1", 64, 0.1, {"p": 2}
        ),
        calibration=DataSpec(samples=5),
    ),
]


def parsed_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> RunSpec:
    """What a `prune` would start."""
    parsed = []

    def capture(runs_dir: Path, spec: RunSpec) -> Path:
        parsed.append(spec)
        raise KeyboardInterrupt

    monkeypatch.setattr("core.cli.prune.foreground", capture)
    assert main(["prune", *words]) == 130
    return parsed[0]


@pytest.mark.parametrize("name", EFFORTS)
def test_a_preset_is_of_a_whole_run(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert parsed_of(monkeypatch, "demo", "--preset", name) == with_effort(RunSpec(), name)
    other = parsed_of(monkeypatch, "demo", "--preset", name, "--method", "l2", "--samples", "3")
    assert (other.prune.method, other.calibration.samples) == ("l2", 3)
    assert other.recover == with_effort(RunSpec(), name).recover


@pytest.mark.parametrize("spec", SPECS)
def test_a_command_line_gives_its_spec_back(monkeypatch: pytest.MonkeyPatch, spec: RunSpec) -> None:
    parsed = []

    def capture(runs_dir: Path, found: RunSpec) -> Path:
        parsed.append(found)
        raise KeyboardInterrupt

    for module in ("prune", "explore", "evaluate"):
        monkeypatch.setattr(f"core.cli.{module}.foreground", capture)
    words = shlex.split(command_line(spec))
    assert words[:3] == ["python", "-m", "core"]
    assert main(words[3:]) == 130
    settled = [replace(each.settled(), extra={}) for each in (*parsed, spec)]
    assert len(parsed) == 1 and settled[0] == settled[1]


def test_settings_of_a_training_that_is_not_done_are_not_typed() -> None:
    left = RunSpec(recover=RecoverSpec(data="bundled"))
    assert "--recover-data" not in command_line(left)
    trained = replace(left, recover=replace(left.recover, method="lora"))
    assert "--recover-data bundled" in command_line(trained)


def test_a_saved_spec_is_run_again_and_may_be_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parsed = []

    def capture(runs_dir: Path, found: RunSpec) -> Path:
        parsed.append(found)
        raise KeyboardInterrupt

    monkeypatch.setattr("core.cli.prune.foreground", capture)
    file = tmp_path / "spec.json"
    file.write_text(replace(SPECS[1], extra={"versions": {}}).to_json())
    again = ["prune", "--spec", str(file)]
    assert SPECS[1].model.trust_remote_code and main(again) == 2 and not parsed  # a file is no consent
    again.append("--trust-remote-code")
    assert main(again) == main([*again, "--seed", "8"]) == 130
    assert parsed == [SPECS[1], replace(SPECS[1], seed=8)]
    parsed.clear()
    main([*again, "--set", "a=2"])
    main([*again, "--method", "l1"])
    main([*again, "--method", "l1", "--set", "z= 3"])
    assert [spec.prune.options for spec in parsed] == [{**SPECS[1].prune.options, "a": 2}, {}, {"z": 3}]


@pytest.mark.parametrize("arguments", [["--help"], ["prune", "--help"], ["runs", "list"]])
def test_what_needs_no_model_loads_no_torch(tmp_path: Path, arguments: list[str]) -> None:
    slow = "sys.exit(bool({'torch', 'networkx', 'scipy'} & set(sys.modules)))"
    code = f"import sys; from core.cli.app import main; main(sys.argv[1:]); {slow}"
    environment = {**os.environ, "PYTHONPATH": str(launch.ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, env=environment, capture_output=True
    )
    assert found.returncode == 0, found.stderr
