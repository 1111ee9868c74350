"""What commands answer: the keys of each, one JSON object on stdout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.cli.app import main
from core.cli.terminal import plain
from core.results.scores import SCORES
from core.results.similarity import heads_only
from core.runs import launch, watch
from core.runs.artifacts import EVENTS, PLAN, SPEC, read_graph, read_plan
from core.runs.status import STATUS
from core.spec.run import RunSpec
from tests.cli.calls import answer, refused

KEYS = {
    "groups": {"model", "family", "seconds", "kinds", "not_prunable"},
    "score": {"run_dir", "seconds", "criteria", "activations"},
    "similarity": {"run_dir", "layers"},
    "sensitivity": {"run_dir", "baseline_ppl", "baseline_stderr", "layers"},
    "prune": {
        "run_dir", "params_before", "params_after", "sparsity", "sparsity_total",
        "ppl_before", "ppl_after", "seconds", "perplexities",
    },
    "sweep": {
        "run_dir", "seconds", "baseline_ppl", "baseline_stderr", "params_before", "points", "calibration",
        "texts",
    },
    "evaluate": {
        "ppl", "ppl_stderr", "tasks", "params", "macs", "latency_ms", "latency_spread_ms",
        "tokens_per_second", "tokens_per_second_spread", "memory_gib", "perplexities",
    },
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
        graph = read_graph(Path(found["run_dir"]))
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


def test_sweep_and_sensitivity_say_how_sure_each_point_is(
    capsys: pytest.CaptureFixture[str], asked: dict[str, list[str]]
) -> None:
    for command, name in (("sweep", "points"), ("sensitivity", "layers")):
        found = answer(capsys, asked[command])
        assert found["baseline_stderr"] > 0 and len(found[name]) == 4
        for point in found[name]:
            assert point["ppl_stderr"] > 0 and point["change_stderr"] > 0
            assert point["verdict"] in ("clear", "noise")
        assert main(asked[command]) == 0
        shown = capsys.readouterr().out
        texts = 2 if command == "sweep" else 1
        plain = shown.replace("± one standard error", "")
        assert plain.count(" ± ") == 5 * texts, "the dense model and each point"
        marks = [point["verdict"] == "noise" for point in found[name]]
        assert shown.count(", within the noise") >= sum(marks)


def test_heads_that_a_layer_lacks_are_not_counted() -> None:
    matrix = np.full((3, 3), np.nan, np.float32)
    matrix[:2, :2] = [[0, 0.5], [0.5, 0]]
    assert heads_only(matrix).tolist() == [[0, 0.5], [0.5, 0]]


def test_prune_evaluate_generate_and_runs_work_together(
    capsys: pytest.CaptureFixture[str], asked: dict[str, list[str]], tmp_path: Path
) -> None:
    pruned = answer(capsys, asked["prune"])
    run_dir = Path(pruned["run_dir"])
    assert pruned["params_after"] < pruned["params_before"]
    assert pruned["sparsity"] == pytest.approx(read_plan(run_dir).sparsity)
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
    plan = read_plan(Path(first["run_dir"]))
    assert plan.removed == {"L00.query_head": (1,), "L01.ffn_channel": (0, 1, 2, 3, 4, 5, 40)}
    # One head: 8 rows of q and 8 columns of o; seven channels: a row of gate, of up, a column of down each.
    assert first["params_before"] - first["params_after"] == 2 * 8 * 32 + 7 * 3 * 32
    again = answer(capsys, [*words, "--plan", str(Path(first["run_dir"]) / PLAN)])
    assert again["ppl_after"] == first["ppl_after"] and again["sparsity"] == first["sparsity"]
    assert "manual" in Path(again["run_dir"]).name
    assert not (Path(first["run_dir"]) / SCORES).exists()


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
    (run_dir / STATUS).write_text("{")
    (run_dir / EVENTS).write_bytes(b"garbage\n")
    runs = ["--runs-dir", str(tmp_path)]
    (listed,) = answer(capsys, ["runs", "list", *runs])["runs"]
    assert listed["state"] == "damaged" and "status.json" in listed["error"]["message"]
    assert answer(capsys, ["runs", "show", run_dir.name, *runs])["damaged_events"] == 1
    (run_dir / SPEC).write_text("[]")
    assert answer(capsys, ["runs", "show", run_dir.name, *runs])["spec"] is None


def test_detach_leaves_the_run_to_a_worker(
    capsys: pytest.CaptureFixture[str], asked: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Path] = []
    monkeypatch.setattr(launch, "start_next", started.append)
    found = answer(capsys, [*asked["prune"], "--detach"])
    assert set(found) == {"run_dir", "id", "run_memory_predicted_gib"}
    assert Path(found["run_dir"]).name == found["id"]
    assert watch.refresh(Path(found["run_dir"])).state == "queued" and len(started) == 1


# what is wrong


def test_what_libraries_print_stays_off_stdout(
    capsys: pytest.CaptureFixture[str], asked: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.graph.discover import discover
    from core.models import again

    def noisy(*args: Any, **kwargs: Any) -> Any:
        print("tracing, tracing")
        return discover(*args, **kwargs)

    monkeypatch.setattr(again, "discover", noisy)
    assert main([*asked["explore"], "--json"]) == 0
    shown = capsys.readouterr()
    assert (
        set(json.loads(shown.out)) == {"run_dir", "seconds", "analyses", "activations"}
        and "tracing" in shown.err
    )


def test_json_has_no_infinity() -> None:
    assert plain({"ppl": float("inf"), "x": [float("nan"), 1.5]}) == {"ppl": None, "x": [None, 1.5]}


# a spec as a command, and back
