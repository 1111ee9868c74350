"""Runs and models of release 0.1.0 are read, shown, measured and gone on with, as that release left them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from core.files import read_json
from core.report.page import write_report
from core.results.masks import read_masks
from core.results.scores import read_scores
from core.results.sensitivity import read_sensitivity
from core.results.similarity import read_similarity
from core.results.sweep import read_sweep
from core.results.widths import read_widths
from core.runs.artifacts import read_graph, read_plan, read_spec
from core.runs.records import full_record
from core.runs.watch import list_runs
from pruneviz.actions.forms import form_from
from pruneviz.data.contenders import DENSE, finished, line_up
from pruneviz.data.runs import list_runs as records_in
from pruneviz.data.runs import read_run
from pruneviz.data.tail import read_events
from pruneviz.figures.compare import compare_info, entries_of
from pruneviz.figures.curves import curves_info
from pruneviz.figures.heads import heads_info
from pruneviz.figures.mask_state import mask_info
from pruneviz.figures.run_detail import detail_html, stages_info
from pruneviz.figures.runs_table import row_info
from pruneviz.figures.scores import heat_info, kinds_scored
from pruneviz.figures.sensitivity import sensitivity_info
from pruneviz.figures.slides import slides
from pruneviz.figures.structure import structure_info
from pruneviz.figures.structure_map import map_info
from pruneviz.figures.sweep import sweep_info
from pruneviz.figures.training import training_info
from pruneviz.figures.widths import profile_of, widths_info
from tests.cli.calls import answer
from tests.release_0_1.reading import MODELS, RUNS, describe, describe_model, logits_of, run_of
from tests.stages.steps import again

FOLDER = Path(__file__).parent / "release_0_1"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
NAMES = list(EXPECTED["runs"])
#: What all perplexities but one were measured on, and nothing else.
PPL = ["--ppl", "evaluation.txt", "--window", "32", "--tokens", "256", "--no-efficiency", "--prompt", ""]

#: An option of that release -> what it is called today; the commands of its runs are told in words of today.
TODAY = {"--multiple": "--align"}


@pytest.fixture
def past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the runs, beside the model and the texts that they name."""
    shutil.copytree(FOLDER / "written", tmp_path / "written")
    monkeypatch.chdir(tmp_path / "written")
    return tmp_path / "written" / RUNS


def holding(file: str) -> list[str]:
    """The runs that have this file."""
    return [name for name in NAMES if file in EXPECTED["runs"][name]["files"]]


def within(expected: Any, found: Any) -> bool:
    """Whether all that is expected is found; a later release may say more."""
    if isinstance(expected, dict):
        return all(key in found and within(value, found[key]) for key, value in expected.items())
    return bool(expected == found)


def test_every_run_is_listed_and_none_is_damaged(past: Path) -> None:
    found = {one["name"]: one for one in map(full_record, list_runs(past))}
    assert set(found) == set(NAMES) and len(records_in(past)) == len(NAMES)
    assert {one["state"] for one in found.values()} == {"finished", "failed", "stopped"}
    assert [name for name, one in found.items() if one["error"]] == ["failed"]
    assert all(one["log"] and one["damaged_events"] == 0 for one in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_record_and_the_files_say_what_they_said(past: Path, name: str) -> None:
    expected, found = EXPECTED["runs"][name], describe(run_of(past, name))
    record = {key: value for key, value in expected["record"].items() if key != "command"}
    assert within(record, found["record"])
    told = {TODAY.get(word, word) for word in expected["record"]["command"].split()}
    assert told <= set(found["record"]["command"].split())
    assert found["files"] == expected["files"]


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_a_spec_is_read(past: Path, name: str) -> None:
    text = (run_of(past, name) / "spec.json").read_text()
    raw = json.loads(text.replace('"taylor_first"', '"taylor_first_per_sample"'))  # what it is called now
    assert raw["extra"]["versions"]["torch"]
    assert within(raw, json.loads(read_spec(run_of(past, name)).to_json()))


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_computes_what_it_did(past: Path, name: str) -> None:
    expected, found = EXPECTED["models"][name], describe_model(run_of(past, name) / "model")
    assert found["logits"] == pytest.approx(expected["logits"], abs=1e-4)
    assert {**found, "logits": expected["logits"]} == expected


def test_a_saved_model_with_equal_layers_is_a_stock_model(past: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(run_of(past, "recovered") / "model")
    assert logits_of(model) == pytest.approx(EXPECTED["models"]["recovered"]["logits"], abs=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_a_run_is_measured_again_with_the_same_result(
    past: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = run_of(past, name)
    metrics, spec = full_record(run_dir)["metrics"], read_spec(run_dir)
    ask = ["evaluate", run_dir.name, "--runs-dir", str(past), *PPL, "--device", "cpu"]
    found = answer(capsys, [*ask, "--dtype", spec.model.dtype])
    assert found["params"] == metrics["params_after"]
    # bfloat16 keeps three digits, and which way they round is the machine's
    assert found["ppl"] == pytest.approx(metrics["ppl_after"], rel=0.02 if name == "fused" else 1e-4)


def test_a_run_answers_as_it_did(past: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = run_of(past, "ragged")
    kept = read_json(run_dir / "samples.json")[0]
    ask = ["generate", run_dir.name, "--runs-dir", str(past), "--prompt", kept["prompt"]]
    assert answer(capsys, [*ask, "--max-new-tokens", "8"])["text"] == kept["pruned"]["text"]


@pytest.mark.parametrize("name", ["refitted", "ragged"])
def test_a_spec_is_run_again_with_the_same_result(
    past: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run_of(past, name)
    ask = ["prune", "--spec", str(before / "spec.json"), "--name", "again", "--runs-dir", str(past)]
    found = answer(capsys, ask)
    assert found["ppl_after"] == pytest.approx(full_record(before)["metrics"]["ppl_after"], rel=1e-3)
    assert read_plan(run_of(past, "again")).removed == read_plan(before).removed
    (first, now), (then, scores) = (
        read_scores(run_of(past, "again")).popitem(),
        read_scores(before).popitem(),
    )
    assert first == then == read_plan(before).method
    assert all(now[group] == pytest.approx(values, rel=1e-4) for group, values in scores.items())


@pytest.mark.parametrize("name", ["ragged", "refitted", "fused"])
def test_a_model_is_pruned_again(past: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = run_of(past, name)
    ask = [
        "prune",
        str(run_dir),
        "--method",
        "l2",
        "--sparsity",
        "0.1",
        "--calibration",
        "none",
        "--length",
        "32",
        *PPL,
    ]
    shown = answer(capsys, [*ask, "--name", "again", "--runs-dir", str(past), "--device", "cpu"])
    before, whole = (read_plan(Path(run) / "model") for run in (run_dir, shown["run_dir"]))
    assert whole.before == before.before and shown["params_before"] == before.after.params
    assert all(set(units) <= set(whole.removed[group]) for group, units in before.removed.items())


def test_a_run_goes_on_with_the_scores_that_it_kept(past: Path) -> None:
    run_dir = run_of(past, "uncoupled")
    spec = json.loads((run_dir / "spec.json").read_text())
    spec["prune"]["without_dependency"] = False  # which scores anew
    (run_dir / "spec.json").write_text(json.dumps(spec))
    again(run_dir)
    told = [event.data.get("text") for event in read_events(run_dir) if event.type == "message"]
    assert "The scores from before are kept" in told
    assert read_plan(run_dir).method == read_spec(run_dir).prune.method == "taylor_first_per_sample"


def test_an_exploration_is_scanned_again_with_the_same_result(past: Path) -> None:
    run_dir = run_of(past, "explored")
    before = read_sensitivity(run_dir)
    (run_dir / "sensitivity.json").unlink()
    again(run_dir)
    assert read_spec(run_dir).explore.criteria == ("taylor_first_per_sample", "wanda", "l2")
    after = read_sensitivity(run_dir)
    assert after.criterion == before.criterion == "taylor_first_per_sample"
    assert [point["ppl"] for point in after.points] == pytest.approx(
        [p["ppl"] for p in before.points], rel=1e-4
    )


def test_a_stopped_training_goes_on_to_the_plan_of_the_one_that_was_not(past: Path) -> None:
    stopped, trained = run_of(past, "stopped"), run_of(past, "trained")
    again(stopped)
    told = [event.data.get("text") for event in read_events(stopped) if event.type == "message"]
    assert "Training goes on after step 4 of 6" in told
    assert read_plan(stopped).removed == read_plan(trained).removed
    found, expected = (full_record(path)["metrics"]["ppl_after"] for path in (stopped, trained))
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_tells_of_every_run(past: Path, name: str) -> None:
    record, expected = read_run(run_of(past, name)), EXPECTED["runs"][name]["record"]
    assert record.state == expected["state"] and record.metrics == (expected["metrics"] or {})
    row = row_info(record)
    assert (row.title, row.state, row.model) == (name, expected["state"], expected["model"])
    states = {stage.name: stage.state for stage in stages_info(record)}
    last = {"finished": "done", "failed": "broken", "stopped": "held"}[record.state]
    assert list(states) == expected["stages"] and states[expected["stage"]] == last
    html = detail_html(record)
    assert name in html and (expected["error"] or {"fix": ""})["fix"] in html
    assert len(read_events(record.path)) == expected["events"]


@pytest.mark.parametrize("name", [name for name in NAMES if EXPECTED["runs"][name]["record"]["method"]])
def test_the_form_is_filled_from_a_run(past: Path, name: str) -> None:
    form, expected = form_from(read_spec(run_of(past, name))), EXPECTED["runs"][name]["record"]
    assert (form["name"], form["prune.method"]) == (name, expected["method"])


def test_the_page_shows_an_exploration(past: Path) -> None:
    run_dir, files = run_of(past, "explored"), EXPECTED["runs"]["explored"]["files"]
    graph, scores = read_graph(run_dir), read_scores(run_dir)
    heads = heads_info(read_similarity(run_dir), graph)
    assert (heads.heads, heads.shares) == (4, (0, 0, 1, 1))
    assert float(heads.divergence.mean()) == pytest.approx(files["similarity.safetensors"]["mean"], rel=1e-4)
    assert set(kinds_scored(scores["wanda"], graph)) == {"query_head", "kv_group", "ffn_channel"}
    assert heat_info(scores["l2"], graph, "l2", "ffn_channel").raw.shape == (2, 16)
    sensitivity = sensitivity_info(read_sensitivity(run_dir))
    assert len(sensitivity.curves) == 4 and len(sensitivity.heads) == 8 and sensitivity.ratios == [0.25, 0.5]


@pytest.mark.parametrize("name", holding("groups.json"))
def test_the_page_shows_what_goes_together(past: Path, name: str) -> None:
    graph = read_graph(run_of(past, name))
    groups = EXPECTED["runs"][name]["files"]["groups.json"]["groups"]
    assert {cell.group: [cell.kind, cell.units] for cell in map_info(graph).cells} == {
        group: [kind, units] for group, (kind, units, _) in groups.items()
    }
    assert len(structure_info(graph, "L01.ffn_channel", 3).slices) == groups["L01.ffn_channel"][2]


@pytest.mark.parametrize("name", holding("widths.json"))
def test_the_page_shows_what_is_left_of_every_layer(past: Path, name: str) -> None:
    info = widths_info(profile_of(name, read_widths(run_of(past, name))), [], True, None)
    layers = EXPECTED["runs"][name]["files"]["widths.json"]["layers"]
    assert info.run.left["ffn"] == [layer["ffn"] for layer in layers]


def test_the_page_shows_a_sweep(past: Path) -> None:
    info = sweep_info(read_sweep(run_of(past, "swept")))
    assert info.varied == ("method",) and len(info.measured) == 4 and not info.refused


@pytest.mark.parametrize(("name", "steps"), [("trained", 6), ("stopped", 4)])
def test_the_page_shows_a_training(past: Path, name: str, steps: int) -> None:
    run_dir = run_of(past, name)
    training, masks = training_info(read_events(run_dir), 6), mask_info(read_masks(run_dir))
    assert (training.done, masks.step) == (steps, steps) and not training.skipped
    assert {kind: sum(mask.stays) for kind, mask in masks.kinds.items()} == (
        EXPECTED["runs"][name]["files"]["masks.safetensors"]["stays"]
    )


def test_the_page_shows_the_curves_of_a_recovery(past: Path) -> None:
    for name in ("recovered", "recovered_later"):
        assert "recover.loss" in curves_info(read_events(run_of(past, name))).curves


def test_the_page_compares_models_that_runs_left(past: Path) -> None:
    records = records_in(past)
    by_name = {record.spec.name: record for record in finished(records) if record.spec}
    assert set(by_name) >= set(MODELS)
    chosen = [by_name[name] for name in ("ragged", "recovered", "trained")]
    lineup = line_up(records, [DENSE, *(record.id for record in chosen)], "llama")
    assert lineup.notes == () and set(lineup.base.values()) == {str(past.parent / "llama")}
    entries = entries_of(lineup, records)
    params = {entry.run: entry.numbers["params"] for entry in entries[1:]}
    assert params == {record.id: record.metrics["params_after"] for record in chosen}
    ragged = next(entry for entry in entries if entry.title == "ragged")
    # the second was scored by another run, of the folder that this one left
    assert set(ragged.scores) == {"bundled_capitals", "bundled_next_sentence"}
    assert ragged.times is not None and ragged.perplexity is not None and ragged.perplexity.losses
    assert len(compare_info(entries).columns) == len(entries)
    titles = [slide.title for slide in slides(lineup, entries)]
    assert "“The”" in titles and "How it was made: trained" in titles


def test_the_report_tells_of_every_run(past: Path) -> None:
    html = write_report(list_runs(past), past / "report.html").read_text()
    assert all(f"{name}</h" in html for name in NAMES)
