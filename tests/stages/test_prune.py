"""The whole story on a tiny model: what a pruning run measures and leaves."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.errors import DataError, SpecError
from core.files import read_json
from core.models.texts import calibration_text, evaluation_text, same_text
from core.results.efficiency import EFFICIENCY, read_efficiency
from core.results.perplexity import read_perplexities
from core.results.widths import WIDTHS
from core.runs import launch, watch
from core.runs.artifacts import EVENTS, METRICS, MODEL, SAMPLES, read_plan, read_spec
from core.runs.events import EventReader
from core.spec.calibration import DataSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.stages import measure as measures
from core.stages.check import check
from core.stages.worker import execute
from core.surgery.int8 import int8_kind
from tests.stages.steps import VERBS, done, outcome, staged

METRIC_KEYS = {
    *(f"{name}_{side}" for side in ("before", "after") for name in (
        "params", "macs", "kv_bytes_per_token", "ppl", "ppl_stderr", "latency_ms", "tokens_per_second",
        "latency_spread_ms", "tokens_per_second_spread", "memory_gib",
    )),
    "sparsity", "sparsity_total", "ppl_text", "ppl_sha256", "ppl_window", "ppl_tokens", "ppl_windows",
    "ppl_scored", "ppl_protocol", "calibration_text", "perplexities", "seconds", "kv_bits",
    "run_memory_gib", "run_memory_predicted_gib",
    "kl_after", "kl_stderr_after",
}  # fmt: skip


def test_a_pruning_run_leaves_everything_the_directory_should_hold(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = done(tmp_path, replace(spec, evaluate=replace(spec.evaluate, efficiency=True)))
    status = watch.refresh(run_dir)
    assert status.state == "finished" and status.stages == VERBS == staged(run_dir)
    metrics = read_json(run_dir / METRICS)
    assert set(metrics) == METRIC_KEYS
    assert all(value is not None for value in metrics.values())
    kept = read_perplexities(run_dir)
    assert list(kept) == ["dense", "pruned"]
    assert [one.ids for one in kept["dense"]] == [one.ids for one in kept["pruned"]]
    rows = metrics["perplexities"]
    assert [row["ppl_text"] for row in rows] == ["evaluation.txt", "World Factbook, evaluation part"]
    for number, row in enumerate(rows):  # what a row's numbers depend on stands in it
        assert len(kept["dense"][number].losses) == row["ppl_windows"] == 128 // row["ppl_window"] == 8
        errors = [row["ppl_stderr_before"], row["ppl_stderr_after"]]
        assert [of_texts[number].stderr for of_texts in kept.values()] == errors
        assert row["ppl_before"] == kept["dense"][number].ppl and len(row["ppl_sha256"]) == 64
        assert (row["calibration_text"], row["calibration_windows"]) == ("calibration.txt", 4)
        assert (row["calibration_length"], row["seed"]) == (16, 0)
    assert all(metrics[name] == rows[0][name] for name in METRIC_KEYS if name.startswith("ppl"))
    plan = read_plan(run_dir)
    assert metrics["params_after"] < metrics["params_before"]
    # The target is met within one unit: an FFN channel owns 3 x 32 parameters here.
    removed = metrics["params_before"] - metrics["params_after"]
    assert abs(removed - 0.3 * plan.params_in_scope) <= 96
    assert metrics["sparsity"] == pytest.approx(removed / plan.params_in_scope)
    widths = read_json(run_dir / WIDTHS)
    assert widths["dense"] == {"query_heads": 4, "kv_heads": 2, "ffn": 48, "hidden": 32}
    for layer in widths["layers"]:
        gone = [
            len(plan.removed.get(f"L{layer['layer']:02d}.{kind}", ()))
            for kind in ("query_head", "ffn_channel")
        ]
        assert [layer["query_heads"], layer["ffn"]] == [4 - gone[0], 48 - gone[1]]
    (sample,) = read_json(run_dir / SAMPLES)
    assert sample["prompt"] == "the a of" and set(sample["dense"]) == {"text", "tokens_per_second"}
    extra = read_spec(run_dir).extra
    assert len(extra["calibration"]["sha256"]) == 64 and extra["versions"]["torch"]
    points = [e.data for e in EventReader(run_dir / EVENTS).read() if e.type == "metric"]
    assert [(point["name"], point["value"]) for point in points] == [
        (f"{name}{text}", row[name])
        for name in ("ppl_before", "ppl_after")
        for row, text in zip(rows, ("", ".World Factbook, evaluation part"), strict=True)
    ]  # fmt: skip


def test_the_saved_model_gives_the_perplexity_of_the_run(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = done(tmp_path, spec)
    metrics = read_json(run_dir / METRICS)
    measured = done(tmp_path, replace(spec, goal="evaluate", model=ModelSpec(str(run_dir), "cpu")))
    found = read_json(measured / METRICS)
    assert found["ppl"] == pytest.approx(metrics["ppl_after"], rel=1e-4)
    assert (found["params"], found["macs"]) == (metrics["params_after"], metrics["macs_after"])
    assert found["tasks"] == {} and found["latency_ms"] is None
    dense = read_json(done(tmp_path, replace(spec, goal="evaluate")) / METRICS)
    assert (dense["params"], dense["macs"]) == (metrics["params_before"], metrics["macs_before"])


def test_a_seed_gives_the_same_result_again(tmp_path: Path, spec: RunSpec, uninterrupted: Any) -> None:
    assert outcome(done(tmp_path, spec)) == uninterrupted
    other = outcome(done(tmp_path, replace(spec, seed=1)))
    assert other[0].removed != uninterrupted[0].removed


def test_a_model_too_large_for_two_copies_is_timed_before_the_cut(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "roomy", lambda loaded: False)
    forbidden = SimpleNamespace(deepcopy=lambda model: pytest.fail("a second copy was made"))
    monkeypatch.setattr(measures, "copy", forbidden)
    run_dir = done(tmp_path, replace(spec, evaluate=replace(spec.evaluate, efficiency=True)))
    metrics = read_json(run_dir / METRICS)
    assert metrics["latency_ms_before"] > 0 and metrics["latency_ms_after"] > 0
    kept = read_json(run_dir / EFFICIENCY)
    assert {name: one["latency_ms"] for name, one in kept.items()} == {
        "dense": metrics["latency_ms_before"], "pruned": metrics["latency_ms_after"]
    }  # fmt: skip
    for side, one in read_efficiency(run_dir).items():
        ending = {"dense": "before", "pruned": "after"}[side]
        assert metrics[f"latency_spread_ms_{ending}"] == one.latency_spread_ms > 0
        assert metrics[f"tokens_per_second_spread_{ending}"] == one.tokens_per_second_spread > 0
        assert len(one.timed("latency_ms").rounds_ms) == one.timed("latency_ms").repeats
    card = (run_dir / MODEL / "README.md").read_text()
    assert re.search(r"\| Time to read a prompt \(ms\) \| \d+\.\d ± \d+\.\d \| \d+\.\d ± \d+\.\d \|", card)
    assert "times ± half of slowest minus fastest" in card


def test_the_dense_model_does_not_stay_on_a_card_to_be_timed() -> None:
    model = SimpleNamespace(parameters=lambda: [])
    assert measures.roomy(SimpleNamespace(device=torch.device("cpu"), model=model))
    assert not measures.roomy(SimpleNamespace(device=torch.device("cuda"), model=model))


def test_a_run_keeps_the_most_memory_that_a_stage_held(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = done(tmp_path, spec)
    assert read_json(run_dir / METRICS)["run_memory_gib"] > 0.1  # torch alone is as large
    assert re.search(
        r"capture took [\d.]+ s, [\d.]+ GiB of memory at most", (run_dir / "log.txt").read_text()
    )


def test_models_in_8_bits_are_measured_beside_the_others(tmp_path: Path, spec: RunSpec) -> None:
    asked = replace(spec, evaluate=replace(spec.evaluate, efficiency=True, int8=True))
    run_dir = done(tmp_path, asked)
    found = read_json(run_dir / METRICS)
    for side in ("before", "after"):
        assert found[f"memory_gib_int8_{side}"] < found[f"memory_gib_{side}"]
        assert found[f"ppl_int8_{side}"] == pytest.approx(found[f"ppl_{side}"], rel=0.1)
        assert found[f"ppl_int8_{side}"] != found[f"ppl_{side}"]
        assert found[f"kind_int8_{side}"] == int8_kind("cpu")[0]
    names = ["dense", "pruned", "dense int8", "pruned int8"]
    assert list(read_json(run_dir / EFFICIENCY)) == names
    alone = done(tmp_path, replace(asked, goal="evaluate", model=ModelSpec(str(run_dir), "cpu")))
    found_alone = read_json(alone / METRICS)
    assert found_alone["ppl_int8"] == pytest.approx(found["ppl_int8_after"], rel=1e-3)
    with pytest.raises(SpecError, match="int8"):
        replace(asked.evaluate, efficiency=False)


def test_a_method_without_data_reads_none(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = done(tmp_path, replace(spec, prune=PruneSpec("random", 0.3)))
    assert staged(run_dir) == [verb for verb in VERBS if verb != "capture"]
    assert read_json(run_dir / METRICS)["calibration_text"] is None


def test_a_refit_reads_the_text_where_the_method_reads_none(
    tmp_path: Path, spec: RunSpec, texts: tuple[Path, Path]
) -> None:
    refit = replace(spec, prune=PruneSpec("l2", 0.3, reconstruct="bias"))
    same = replace(refit, evaluate=replace(spec.evaluate, text=str(texts[0])))
    run_dir = done(tmp_path, same)
    assert read_json(run_dir / METRICS)["calibration_text"] == "calibration.txt"
    told = [e.data["text"] for e in EventReader(run_dir / EVENTS).read() if e.type == "message"]
    assert any("same text" in text for text in told)


def test_a_model_can_calibrate_itself(tmp_path: Path, spec: RunSpec) -> None:
    own = replace(spec, calibration=DataSpec("self", 3, 16), prune=PruneSpec("second_moment", 0.3))
    check(own)
    run_dir = done(tmp_path, own)
    text = "text the model wrote itself"
    assert read_json(run_dir / METRICS)["calibration_text"] == text
    recorded = read_spec(run_dir).extra
    assert recorded["calibration"]["name"] == text and len(recorded["calibration"]["sha256"]) == 64
    assert "versions" in recorded and "evaluation" in recorded


def test_without_text_only_criteria_that_need_none_run(tmp_path: Path, spec: RunSpec) -> None:
    none = replace(spec, calibration=DataSpec("none"), prune=PruneSpec("second_moment_data_free", 0.3))
    check(none)
    run_dir = done(tmp_path, none)
    assert read_json(run_dir / METRICS)["calibration_text"] is None
    assert "calibration" not in read_spec(run_dir).extra


def test_only_the_layers_asked_for_are_cut(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = done(tmp_path, replace(spec, prune=PruneSpec("l2", 0.3, layers="1:2")))
    assert {group[:3] for group in read_plan(run_dir).removed} == {"L01"}


def test_a_papers_protocol_stands_in_the_record(tmp_path: Path, spec: RunSpec) -> None:
    """Every whole window of 128 tokens is scored, and a window that this model cannot read is refused."""
    asked = replace(spec.evaluate, protocol="llm-pruner", window=None, tokens=None)
    run_dir = done(tmp_path, replace(spec, goal="evaluate", evaluate=asked))
    metrics = read_json(run_dir / METRICS)
    about = {
        key: metrics[f"ppl_{key}"] for key in ("protocol", "text", "window", "windows", "tokens", "scored")
    }
    assert about == {
        "protocol": "llm-pruner", "text": "evaluation.txt", "window": 128, "windows": 15, "tokens": 1920,
        "scored": 15 * 127,
    }  # fmt: skip
    (kept, facts), *_ = read_perplexities(run_dir).values()
    assert facts.protocol == "llm-pruner" and facts.window == 128
    assert (kept.protocol, kept.text, kept.ppl) == ("llm-pruner", "evaluation.txt", metrics["ppl"])
    with pytest.raises(SpecError, match="the window of protocol nuteprune is 2048, but this model reads 256"):
        check(replace(spec, goal="evaluate", evaluate=replace(asked, protocol="nuteprune")))


def test_the_same_text_for_both_is_said(tmp_path: Path, spec: RunSpec, texts: tuple[Path, Path]) -> None:
    same = replace(spec, evaluate=replace(spec.evaluate, text=str(texts[0])))
    told = [e.data["text"] for e in EventReader(done(tmp_path, same) / EVENTS).read() if e.type == "message"]
    assert any("same text" in text for text in told)
    other = tmp_path / "copy.jsonl"  # elsewhere, in another form
    other.write_text(json.dumps({"text": texts[0].read_text().replace(" ", "\n")}))
    assert same_text(calibration_text(str(texts[0])), evaluation_text(str(other)))
    for split, text in zip(("train", "validation"), texts, strict=True):
        (tmp_path / "data" / "c4" / f"{split}.jsonl").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "c4" / f"{split}.jsonl").write_text(json.dumps({"text": text.read_text()}))
    named = replace(spec.evaluate, text="c4")
    splits = replace(spec, data_dir=str(tmp_path / "data"), calibration=replace(spec.calibration, name="c4"))
    run_dir = done(tmp_path, replace(splits, evaluate=named))
    told = [e.data["text"] for e in EventReader(run_dir / EVENTS).read() if e.type == "message"]
    assert any("two splits of one data set, C4 (train) and C4 (validation)" in text for text in told)
    assert read_json(run_dir / METRICS)["ppl_text"] == "C4 (validation)"
    told = [e.data["text"] for e in EventReader(done(tmp_path, spec) / EVENTS).read() if e.type == "message"]
    assert not any("same text" in text for text in told)
    later = replace(spec, evaluate=replace(spec.evaluate, also=("factbook", str(texts[0]))))
    told = [e.data["text"] for e in EventReader(done(tmp_path, later) / EVENTS).read() if e.type == "message"]
    (said,) = [text for text in told if "same text" in text]
    assert texts[0].name in said, "the text is named, for the others are fine"


def test_more_texts_are_read_as_far_as_they_go_and_none_is_measured_twice(
    tmp_path: Path, spec: RunSpec, texts: tuple[Path, Path]
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("the a of " * 20)
    asked = replace(spec.evaluate, also=(str(short), str(texts[1]), str(short)))
    run_dir = done(tmp_path / "runs", replace(spec, goal="evaluate", evaluate=asked))
    rows = read_json(run_dir / METRICS)["perplexities"]
    assert [(row["ppl_text"], row["ppl_windows"]) for row in rows] == [
        ("evaluation.txt", 8),
        ("short.txt", 3),
    ]
    alone = done(tmp_path / "runs", replace(spec, goal="evaluate", evaluate=replace(asked, also=())))
    assert read_json(alone / METRICS)["perplexities"] == rows[:1]
    missing = replace(spec, evaluate=replace(asked, also=(str(tmp_path / "nowhere.txt"),)))
    with pytest.raises(DataError, match="nowhere"):
        check(missing)


def test_too_few_tokens_to_reconstruct_on_are_said_before_anything_is_measured(
    tmp_path: Path, spec: RunSpec
) -> None:
    asked = replace(spec.prune, reconstruct="pre_pruning", recovery_samples=1024)
    run_dir = launch.create(tmp_path, replace(spec, prune=asked), mine=True)
    said = r"pre_pruning takes 1,024 recovery_samples\. .* has 2,\d{3} tokens, but 1024 windows of 16 need"
    with pytest.raises(DataError, match=said):
        execute(run_dir)
    assert "baseline" not in staged(run_dir)


def test_refitting_without_a_text_is_refused_at_once(spec: RunSpec) -> None:
    asked = replace(spec.prune, method="l2", reconstruct="least_squares")
    with pytest.raises(DataError, match="reconstruct least_squares needs calibration text, got 'none'"):
        check(replace(spec, prune=asked, calibration=DataSpec("none")))


def test_what_memory_the_gradients_need_is_said_before_the_pass(tmp_path: Path, spec: RunSpec) -> None:
    run_dirs = [done(tmp_path, spec)]
    for way in (DataSpec(spec.calibration.name, 4, 16, batch=2), spec.calibration):
        method = "taylor_first" if way.batch else "taylor_mix"
        run_dirs.append(done(tmp_path, replace(spec, calibration=way, prune=PruneSpec(method, 0.3))))
    for run_dir, words in zip(run_dirs, ("4 windows go through at once", "2 at a time", "1 at"), strict=True):
        told = list(EventReader(run_dir / EVENTS).read())
        said = next(n for n, e in enumerate(told) if e.type == "message" and words in e.data["text"])
        assert "GiB" in told[said].data["text"]
        read = [n for n, e in enumerate(told) if e.stage == "capture" and e.data.get("unit") == "windows"]
        assert said < min(read)
    assert read_plan(run_dirs[0]).removed == read_plan(run_dirs[1]).removed
