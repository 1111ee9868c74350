"""The command line: the keys of every command, one JSON object on stdout, one line for what is wrong."""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import artifacts, cli_explore, cli_prune, launch, methods
from core.__main__ import main
from core.commands import command_line
from core.spec import DataSpec, EvalSpec, ExploreSpec, ModelSpec, PruneSpec, RunSpec
from core.terminal import plain
from tests.conftest import WORDS


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "words.txt"
    path.write_text(" ".join(random.Random(0).choices(WORDS.split(), k=2000)))
    return path


@pytest.fixture
def asked(tiny_llama_folder: Path, words: Path, tmp_path: Path) -> dict[str, list[str]]:
    """The arguments that make each command quick."""
    runs = ["--runs-dir", str(tmp_path / "runs"), "--device", "cpu"]
    data = ["--calibration", str(words), "--samples", "4", "--length", "16", *runs]
    ppl = ["--ppl", str(words), "--window", "16"]
    measure = [*ppl, "--tokens", "64", "--prompt", "the a", "--max-new-tokens", "3", "--no-efficiency"]
    model = str(tiny_llama_folder)
    return {
        "groups": ["groups", model, "--device", "cpu"],
        "score": ["score", model, *data, "--criterion", "l2", "--criterion", "taylor_first"],
        "similarity": ["similarity", model, *data, "--tau", "1"],
        "sensitivity": ["sensitivity", model, *data, *ppl, "--ratio-tokens", "32", "--ratio-by", "l2"],
        "explore": ["explore", model, *data, "--analyses", "groups"],
        "prune": ["prune", model, *data, *measure, "--method", "l2", "--sparsity", "0.2"],
        "sweep": [
            "sweep",
            model,
            *data,
            *ppl,
            "--tokens",
            "64",
            "--methods",
            "l2,random",
            "--sparsities",
            "0.1,0.3",
            "--seeds",
            "0",
            "--samples",
            "2",
        ],
        "evaluate": ["evaluate", model, *measure, *runs],
        "generate": ["generate", model, "--prompt", "the a of", "--max-new-tokens", "4", "--device", "cpu"],
        "methods": ["methods"],
        "list": ["runs", "list", "--runs-dir", str(tmp_path / "runs")],
    }


def answer(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> dict[str, Any]:
    """The one JSON object on stdout."""
    capsys.readouterr()
    code = main([*arguments, "--json"])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    found = json.loads(shown.out)
    assert isinstance(found, dict)
    return found


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line on stderr of a request that is wrong."""
    capsys.readouterr()
    code = main(arguments)
    shown = capsys.readouterr()
    assert (code, shown.out) == (2, ""), shown.err
    assert shown.err.count("\n") == 1 and shown.err.endswith("\n"), shown.err
    return shown.err


KEYS = {
    "groups": {"model", "family", "seconds", "kinds", "not_prunable"},
    "score": {"run_dir", "seconds", "criteria"},
    "similarity": {"run_dir", "layers"},
    "sensitivity": {"run_dir", "baseline_ppl", "layers"},
    "prune": {
        "run_dir", "params_before", "params_after", "sparsity", "sparsity_total",
        "ppl_before", "ppl_after", "seconds",
    },
    "sweep": {"run_dir", "seconds", "baseline_ppl", "params_before", "points"},
    "evaluate": {"ppl", "tasks", "params", "macs", "latency_ms", "memory_gib"},
    "generate": {"text", "tokens_per_second"},
    "methods": {"criteria", "methods"},
    "list": {"runs"},
}  # fmt: skip


@pytest.mark.parametrize("command", list(KEYS))
def test_every_command_has_exactly_its_keys(
    capsys: pytest.CaptureFixture[str], asked: dict[str, list[str]], command: str
) -> None:
    assert set(answer(capsys, asked[command])) == KEYS[command]


@pytest.mark.parametrize(
    "command", ["groups", "similarity", "prune", "sweep", "evaluate", "generate", "methods"]
)
def test_people_get_lines(
    capsys: pytest.CaptureFixture[str], asked: dict[str, list[str]], command: str
) -> None:
    assert main(asked[command]) == 0
    shown = capsys.readouterr().out
    assert shown.strip() and not shown.startswith("{")


def test_groups_are_counted_by_kind(capsys: pytest.CaptureFixture[str], asked: dict[str, list[str]]) -> None:
    found = answer(capsys, asked["groups"])
    # 2 layers, 48 channels, three matrices of 32 columns or rows each.
    ffn = {"groups": 2, "units": 96, "params": 2 * 48 * 3 * 32, "prunable": True}
    assert found["kinds"]["ffn_channel"] == ffn
    assert found["kinds"]["query_head"]["units"] == 8 and found["kinds"]["kv_group"]["units"] == 4
    config_only = answer(capsys, ["groups", asked["groups"][1], "--config-only"])
    assert config_only["kinds"] == found["kinds"]


def test_a_config_alone_gives_its_groups_as_a_run(
    capsys: pytest.CaptureFixture[str], asked: dict[str, list[str]], tiny_llama_folder: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((tiny_llama_folder / "config.json").read_bytes())
    runs = ["--runs-dir", str(tmp_path / "runs")]
    for source in (bare, bare / "config.json"):
        found = answer(capsys, ["explore", str(source), "--config-only", *runs])
        graph = artifacts.read_graph(Path(found["run_dir"]))
        assert found["analyses"] == ["groups"] and graph.config_only and graph.model == "bare"
    said = refused(capsys, ["explore", str(bare), "--config-only", "--analyses", "groups,scores", *runs])
    assert "groups alone where only the config is read" in said


def test_similarity_counts_pairs_and_names_candidates(
    capsys: pytest.CaptureFixture[str], asked: dict[str, list[str]]
) -> None:
    for layer in answer(capsys, asked["similarity"])["layers"]:
        assert set(layer) == {"layer", "heads", "pairs_below_tau", "candidates"}
        # Nothing is further apart than 1, so every pair counts, and one head of all would stay.
        assert (layer["heads"], layer["pairs_below_tau"], len(layer["candidates"])) == (4, 6, 3)


def test_heads_that_a_layer_lacks_are_not_counted() -> None:
    matrix = np.full((3, 3), np.nan, np.float32)
    matrix[:2, :2] = [[0, 0.5], [0.5, 0]]
    assert cli_explore.heads_only(matrix).tolist() == [[0, 0.5], [0.5, 0]]


def test_prune_evaluate_generate_and_runs_work_together(
    capsys: pytest.CaptureFixture[str], asked: dict[str, list[str]], tmp_path: Path
) -> None:
    pruned = answer(capsys, asked["prune"])
    run_dir = Path(pruned["run_dir"])
    assert pruned["params_after"] < pruned["params_before"]
    assert pruned["sparsity"] == pytest.approx(artifacts.read_plan(run_dir).sparsity)
    runs = ["--runs-dir", str(tmp_path / "runs")]
    evaluate = [run_dir.name if word == asked["evaluate"][1] else word for word in asked["evaluate"]]
    found = answer(capsys, evaluate)
    assert found["params"] == pruned["params_after"]
    assert found["ppl"] == pytest.approx(pruned["ppl_after"], rel=1e-4)
    generated = answer(capsys, ["generate", run_dir.name, "--prompt", "the", "--max-new-tokens", "3", *runs])
    assert (
        generated["text"]
        == answer(capsys, ["generate", str(run_dir), "--prompt", "the", "--max-new-tokens", "3"])["text"]
    )
    listed = answer(capsys, ["runs", "list", *runs])["runs"]
    assert [one["state"] for one in listed] == ["finished", "finished"]
    shown = answer(capsys, ["runs", "show", run_dir.name, *runs])
    assert shown["id"] == run_dir.name and shown["state"] == "finished" and shown["damaged_events"] == 0
    assert shown["metrics"]["ppl_after"] == pruned["ppl_after"]
    assert shown["spec"]["prune"]["method"] == "l2" and shown["command"].startswith("python -m core prune ")
    assert "stage surgery" in shown["log"]


def test_units_chosen_by_hand_are_cut_and_their_plan_can_be_given_as_a_file(
    capsys: pytest.CaptureFixture[str], asked: dict[str, list[str]]
) -> None:
    words = asked["prune"][: asked["prune"].index("--method")]
    chosen = ["--units", "L00.query_head=1", "--units", "L01.ffn_channel=0-5,40"]
    first = answer(capsys, [*words, *chosen])
    plan = artifacts.read_plan(Path(first["run_dir"]))
    assert plan.removed == {"L00.query_head": (1,), "L01.ffn_channel": (0, 1, 2, 3, 4, 5, 40)}
    # One head: 8 rows of q and 8 columns of o; seven channels: a row of gate, of up, a column of down each.
    assert first["params_before"] - first["params_after"] == 2 * 8 * 32 + 7 * 3 * 32
    again = answer(capsys, [*words, "--plan", str(Path(first["run_dir"]) / artifacts.PLAN)])
    assert again["ppl_after"] == first["ppl_after"] and again["sparsity"] == first["sparsity"]
    assert "manual" in Path(again["run_dir"]).name
    assert not (Path(first["run_dir"]) / artifacts.SCORES).exists()


def test_a_queued_run_is_stopped_and_an_ended_one_is_not_resumed_twice(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "start_next", lambda runs_dir: None)
    run_dir = launch.create(tmp_path, RunSpec())
    runs = ["--runs-dir", str(tmp_path)]
    assert answer(capsys, ["runs", "stop", run_dir.name, *runs])["state"] == "stopped"
    assert answer(capsys, ["runs", "resume", run_dir.name, *runs])["state"] == "queued"
    assert "only an ended run can be resumed" in refused(capsys, ["runs", "resume", run_dir.name, *runs])


def test_a_damaged_run_is_listed_and_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run_dir = launch.create(tmp_path, RunSpec())
    (run_dir / artifacts.STATUS).write_text("{")
    (run_dir / artifacts.EVENTS).write_bytes(b"garbage\n")
    runs = ["--runs-dir", str(tmp_path)]
    (listed,) = answer(capsys, ["runs", "list", *runs])["runs"]
    assert listed["state"] == "damaged" and "status.json" in listed["error"]["message"]
    assert answer(capsys, ["runs", "show", run_dir.name, *runs])["damaged_events"] == 1
    (run_dir / artifacts.SPEC).write_text("[]")
    assert answer(capsys, ["runs", "show", run_dir.name, *runs])["spec"] is None


def test_detach_leaves_the_run_to_a_worker(
    capsys: pytest.CaptureFixture[str], asked: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr(launch, "start_next", started.append)
    found = answer(capsys, [*asked["prune"], "--detach"])
    assert set(found) == {"run_dir", "id"} and Path(found["run_dir"]).name == found["id"]
    assert launch.refresh(Path(found["run_dir"])).state == "queued" and len(started) == 1


# what is wrong


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sparsity", "1.0"], "sparsity must be in [0, 1), got 1; write 0.2 for 20 %."),
        (["--sparsity", "20"], "got 20; write 0.2 for 20 %."),
        (["--sparsity", "-1"], "got -1; write"),
        (["--sparsity", "abc"], "got abc; write"),
        (["--sparsity", "nan"], "got nan; write"),
        (["--method", "tailor_first"], "Did you mean 'taylor_first'? Available:"),
        (["--layers", "1:9"], "layers 1:9 goes past the model, which has layers 0 to 1"),
        (["--layers", "x"], "layers must be first:last, for example 4:30, got 'x'"),
        (["--scope", "globl"], "Unknown scope 'globl'. Did you mean 'global'?"),
        (["--kind-sparsity", "ffn_channel=1.2"], "sparsity must be in [0, 1), got 1.2; write"),
        (["--kind-sparsity", "ffn_channel"], "kind_sparsity takes kind=sparsity, got 'ffn_channel'"),
        (["--multiple", "0"], "multiple must be a whole number from 1 up, got 0."),
        (["--reconstruct", "non"], "Did you mean 'none'?"),
        (["--strategy", "chanel"], "Did you mean 'channel'?"),
        (["--strategy", "block", "--kinds", "ffn_channel"], "leave out --kinds ffn_channel"),
        (["--kinds", "neuron"], "kinds must be some of ffn_channel"),
        (["--kinds", "query_head,kv_group"], "either query_head or kv_group"),
        (["--method", "manual"], "method must be a method that ranks units, or manual with the units"),
        (["--units", "L00.query_head"], "'L00.query_head' does not say which units of which group"),
        (["--units", "L00.query_head=5-2"], "The range 5-2 runs backwards; write 2-5."),
        (["--units", "L00.query_head=x"], "'x' is no unit number and no range; write numbers and ranges"),
        (["--units", "L00.query_head=0", "--sparsity", "0.2"], "--units says which units go, so leave out"),
        (["--units", "L00.query_head=0", "--plan", "plan.json"], "Give either --units or --plan, got both."),
        (["--units", "L00.query_head=9"], "L00.query_head has units 0 to 3, each once; got [9]."),
        (["--units", "L00.query_head=0-3"], "removes all 4 units of L00.query_head; at least one must stay"),
        (["--units", "L09.query_head=0"], "This model has no group 'L09.query_head'"),
        (["--plan", "nowhere.json"], "--plan nowhere.json cannot be read"),
        (["--samples", "many"], "'--samples'"),
        (["--samples", "0"], "samples must be a whole number from 1 up, got 0."),
        (["--seed", "-3"], "seed must be a whole number from 0 up, got -3."),
        (["--dtype", "int8"], "dtype must be one of auto, float32"),
        (["--calibration", "nowhere.txt"], "nowhere.txt"),
        (["--ppl", "nowhere.txt"], "nowhere.txt"),
        (["--spec", "nowhere.json"], "nowhere.json cannot be read"),
        (["--wrong"], "No such option: --wrong"),
    ],
)
def test_a_wrong_request_gets_one_line_and_starts_nothing(
    capsys: pytest.CaptureFixture[str],
    tiny_llama_folder: Path,
    tmp_path: Path,
    arguments: list[str],
    said: str,
) -> None:
    runs = tmp_path / "runs"
    asked = ["prune", str(tiny_llama_folder), "--runs-dir", str(runs), "--device", "cpu", *arguments]
    assert said in refused(capsys, asked)
    assert not runs.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fly"], "No such command 'fly'; there is groups, score"),
        (["runs", "fly"], "there is list, show, stop, resume"),
        (["runs", "show", "nothing"], "Unknown run 'nothing'"),
        (["prune"], "prune needs a MODEL"),
        (["groups"], "Missing argument"),
        (["generate", "demo"], "Missing option '--prompt'"),
    ],
)
def test_a_wrong_command_line_gets_one_line(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, arguments)


def bad_models(folder: Path) -> dict[str, tuple[str, str]]:
    from transformers import BertConfig, T5Config

    (folder / "empty").mkdir()
    BertConfig(architectures=["BertForMaskedLM"]).save_pretrained(folder / "encoder")
    T5Config(architectures=["T5ForConditionalGeneration"]).save_pretrained(folder / "seq2seq")
    return {
        "unknown": (str(folder / "nowhere"), "nowhere"),
        "no config": (str(folder / "empty"), "config.json"),
        "encoder": (str(folder / "encoder"), "Bert"),
        "seq2seq": (str(folder / "seq2seq"), "T5"),
    }


@pytest.mark.parametrize("which", ["unknown", "no config", "encoder", "seq2seq"])
@pytest.mark.parametrize("command", ["prune", "evaluate", "groups", "score", "generate"])
def test_what_is_no_decoder_is_refused_by_every_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, which: str, command: str
) -> None:
    source, said = bad_models(tmp_path)[which]
    runs = [] if command == "groups" else ["--runs-dir", str(tmp_path / "runs")]
    prompt = ["--prompt", "x"] if command == "generate" else []
    assert said in refused(capsys, [command, source, *runs, *prompt])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("extra", [[], ["--detach"]])
def test_a_runs_folder_that_cannot_be_written_is_refused(
    capsys: pytest.CaptureFixture[str], asked: dict[str, list[str]], tmp_path: Path, extra: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    arguments = [*asked["prune"], *extra, "--runs-dir", str(tmp_path / "file" / "runs")]
    assert "cannot be written" in (said := refused(capsys, arguments))
    assert "choose another folder with --runs-dir" in said


def test_what_libraries_print_stays_off_stdout(
    capsys: pytest.CaptureFixture[str], asked: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from core import stages

    real = stages.discover

    def noisy(*args: Any, **kwargs: Any) -> Any:
        print("tracing, tracing")
        return real(*args, **kwargs)

    monkeypatch.setattr(stages, "discover", noisy)
    assert main([*asked["explore"], "--json"]) == 0
    shown = capsys.readouterr()
    assert set(json.loads(shown.out)) == {"run_dir", "seconds", "analyses"} and "tracing" in shown.err


def test_json_has_no_infinity() -> None:
    assert plain({"ppl": float("inf"), "x": [float("nan"), 1.5]}) == {"ppl": None, "x": [None, 1.5]}


# a spec as a command, and back

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
            kind_sparsity={"ffn_channel": 0.3, "query_head": 0.1},
        )
    ),
    methods.with_preset(RunSpec(), "nuteprune", "paper-7b", None),
    methods.with_preset(RunSpec(calibration=DataSpec(samples=3)), "nuteprune", "demo", 20),
    RunSpec(
        calibration=DataSpec(samples=8),
        prune=PruneSpec("nuteprune", 0.3, options={"start": 2.0, "start_from": "", "stage_2": False}),
    ),
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


@pytest.mark.parametrize("spec", SPECS)
def test_a_command_line_gives_its_spec_back(monkeypatch: pytest.MonkeyPatch, spec: RunSpec) -> None:
    parsed = []

    def capture(runs_dir: Path, found: RunSpec) -> Path:
        parsed.append(found)
        raise KeyboardInterrupt

    for module in (cli_prune, cli_explore):
        monkeypatch.setattr(module, "foreground", capture)
    words = shlex.split(command_line(spec))
    assert words[:3] == ["python", "-m", "core"]
    assert main(words[3:]) == 130
    assert parsed == [spec]


def test_a_saved_spec_is_run_again_and_may_be_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parsed = []

    def capture(runs_dir: Path, found: RunSpec) -> Path:
        parsed.append(found)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_prune, "foreground", capture)
    file = tmp_path / "spec.json"
    file.write_text(replace(SPECS[1], extra={"versions": {}}).to_json())
    assert main(["prune", "--spec", str(file)]) == main(["prune", "--spec", str(file), "--seed", "8"]) == 130
    assert parsed == [SPECS[1], replace(SPECS[1], seed=8)]
    parsed.clear()
    main(["prune", "--spec", str(file), "--set", "a=2"])
    main(["prune", "--spec", str(file), "--method", "l1"])
    main(["prune", "--spec", str(file), "--method", "l1", "--set", "z= 3"])
    assert [spec.prune.options for spec in parsed] == [{**SPECS[1].prune.options, "a": 2}, {}, {"z": 3}]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("tau", "--set takes key=value, got 'tau'"),
        ("taw=1", "Unknown option of random 'taw'. Available: none"),
    ],
)
def test_a_setting_that_nobody_takes_is_refused(
    capsys: pytest.CaptureFixture[str], tiny_llama_folder: Path, given: str, said: str
) -> None:
    words = ["prune", str(tiny_llama_folder), "--method", "random", "--set", given]
    assert main(words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["prune", "--help"], ["runs", "list"]])
def test_what_needs_no_model_loads_no_torch(tmp_path: Path, arguments: list[str]) -> None:
    code = "import sys; from core.__main__ import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(launch.ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, env=environment, capture_output=True
    )
    assert found.returncode == 0, found.stderr
