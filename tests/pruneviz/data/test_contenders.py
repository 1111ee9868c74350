from __future__ import annotations

import json
import math

from core.results.efficiency import keep_efficiency
from core.results.perplexity import Perplexity, keep_perplexities
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from pruneviz.data import runs
from pruneviz.data.contenders import before_recovery, choices, keys_of, line_up
from pruneviz.data.measured import columns, kept_answer, numbers, perplexity_of, scores, times_of
from pruneviz.figures.compare import compare_info, entries_of
from tests.pruneviz.samples import MEASURED, efficiency, make_run
from tests.pruneviz.scored import task, write_benchmarks

RECOVERED = {**MEASURED, "ppl_pruned": 80.0, "ppl_recovered": 59.2}


def records(folder):
    return runs.list_runs(folder)


def test_without_an_address_it_is_the_dense_model_and_the_newest_run(tmp_path):
    make_run(tmp_path, "a", created=1.0)
    make_run(tmp_path, "b", created=2.0)
    found = records(tmp_path)
    assert keys_of("", "", found) == ["dense", "b"]
    assert keys_of("", "a", found) == ["dense", "a"], "the run that another tab shows"
    assert keys_of("a,dense,b,a", "b", found) == ["a", "dense", "b"]
    keys = ["dense", "b", "a"]
    assert [key for _, key in choices(found)] == [*keys, *(f"{key}:int8" for key in keys)]
    assert keys_of("dense,a:int8", "a", found) == ["dense", "a:int8"], "of the run that other tabs show"


def test_nothing_to_choose_while_no_run_has_left_a_model(tmp_path):
    make_run(tmp_path, "a", RunSpec(goal="explore"))
    make_run(tmp_path, "b", state="failed")
    assert choices(records(tmp_path)) == [] and keys_of("", "", records(tmp_path)) == []


def test_a_run_that_cut_without_the_couplings_left_no_model(tmp_path):
    make_run(tmp_path, "a", metrics=MEASURED)
    make_run(tmp_path, "b", RunSpec(prune=PruneSpec(without_dependency=True)), metrics=MEASURED)
    assert [key for _, key in choices(records(tmp_path))] == ["dense", "a", "dense:int8", "a:int8"]
    lineup = line_up(records(tmp_path), ["dense", "b"], "demo")
    assert [one.key for one in lineup.contenders] == ["dense"] and "out of run b" in lineup.notes[0]


def test_a_run_that_was_deleted_is_said_and_the_others_stay(tmp_path):
    make_run(tmp_path, "a", metrics=MEASURED)
    lineup = line_up(records(tmp_path), ["dense", "gone", "a"], "demo")
    assert [one.key for one in lineup.contenders] == ["dense", "a"] and "no run gone" in lineup.notes[0]


def test_a_run_that_has_not_finished_is_said_and_left_out(tmp_path):
    make_run(tmp_path, "a", metrics=MEASURED)
    make_run(tmp_path, "b", state="stopped")
    lineup = line_up(records(tmp_path), ["dense", "b"], "demo")
    assert [one.key for one in lineup.contenders] == ["dense"] and "out of run b so far" in lineup.notes[0]


def test_more_than_four_are_left_out_and_said(tmp_path):
    for name in "abcde":
        make_run(tmp_path, name, metrics=MEASURED)
    lineup = line_up(records(tmp_path), list("abcde"), "demo")
    assert len(lineup.contenders) == 4 and "Only 4" in lineup.notes[0]


def test_the_dense_model_is_the_one_at_the_beginning_of_the_chain(tmp_path):
    first = make_run(tmp_path, "a", RunSpec(model=ModelSpec(source="/models/x")), metrics=MEASURED)
    again = RunSpec(goal="prune", model=ModelSpec(source=str(first)))
    make_run(tmp_path, "b", again, metrics=MEASURED)
    dense, _ = line_up(records(tmp_path), ["dense", "b"], "demo").contenders
    assert dense.source == "/models/x"


def test_the_dense_model_has_the_adapter_that_the_run_merged(tmp_path):
    merged = RunSpec(model=ModelSpec("org/base", adapter="org/lora"))
    make_run(tmp_path, "a", merged, metrics=MEASURED)
    make_run(tmp_path, "b", RunSpec(model=ModelSpec(str(tmp_path / "a"))), metrics=MEASURED)
    for key in ("a", "b"):
        dense, cut = line_up(records(tmp_path), ["dense", key], "demo").contenders
        assert (dense.source, dense.adapter, cut.adapter) == ("org/base", "org/lora", "")
        assert dense.detail == "base with lora merged"
    make_run(tmp_path / "others", "c", RunSpec(goal="evaluate", model=merged.model), metrics=MEASURED)
    (measured,) = line_up(records(tmp_path / "others"), ["c"], "demo").contenders
    assert (measured.source, measured.adapter) == ("org/base", "org/lora")


def test_numbers_are_the_run_s_own_by_side(tmp_path):
    make_run(tmp_path, "a", metrics=MEASURED)
    found = records(tmp_path)
    dense, pruned = line_up(found, ["dense", "a"], "demo").contenders
    assert (numbers(dense, found)["ppl"], numbers(pruned, found)["ppl"]) == (26.2, 59.2)
    assert numbers(pruned, found)["ppl_window"] == 256


def test_a_recovered_model_stands_beside_what_it_was_before(tmp_path):
    path = make_run(tmp_path, "a", metrics=RECOVERED)
    write_benchmarks(path, pruned=[task("piqa", "10")], recovered=[task("piqa", "11")])
    found = records(tmp_path)
    (recovered,) = line_up(found, ["a"], "demo").contenders
    before = before_recovery(recovered)
    assert (numbers(before, found)["ppl"], numbers(recovered, found)["ppl"]) == (80.0, 59.2)
    assert [scores(one, found)["piqa"].value for one in (before, recovered)] == [0.5, 1.0]
    assert before_recovery(before) is None


def test_weights_in_8_bits_are_a_column_of_their_own(tmp_path):
    int8 = {"ppl_int8_before": 26.5, "ppl_int8_after": 60.0, "memory_gib_int8_after": 0.2}
    make_run(tmp_path, "a", metrics={**RECOVERED, **int8})
    found = records(tmp_path)
    contenders = line_up(found, ["dense", "a"], "demo").contenders
    shown = {one.title: numbers(one, found) for one in columns(contenders)}
    _, small, before, after, small_after = shown
    assert (small, before) == ("Dense model, 8 bits", "Before recovery") and small_after == f"{after}, 8 bits"
    assert [shown[name]["ppl"] for name in shown] == [26.2, 26.5, 80.0, 59.2, 60.0]
    assert shown[small_after]["memory_gib"] == 0.2 and shown[small_after]["params"] == 842
    assert "latency_ms" not in shown[small_after] and scores(columns(contenders)[-1], found) == {}


def test_a_model_may_be_asked_with_its_weights_in_8_bits(tmp_path):
    int8 = {"ppl_int8_before": 26.5, "ppl_int8_after": 60.0, "latency_ms_int8_after": 300.0}
    path = make_run(tmp_path, "a", metrics={**RECOVERED, **int8, "latency_ms_int8_before": 600.0})
    sample = {"prompt": "P", "dense": {"text": "D"}, "recovered": {"text": "R"}}
    (path / "samples.json").write_text(json.dumps([sample]))
    found = records(tmp_path)
    lineup = line_up(found, ["dense", "a:int8", "gone:int8"], "demo")
    dense, small = lineup.contenders
    assert (small.source, small.int8, small.title) == (
        str(path),
        True,
        "recommended 20.0 %, recovered, 8 bits",
    )
    assert "no run gone in" in lineup.notes[0] and before_recovery(small) is None
    assert kept_answer(small, "P") == {} and kept_answer(dense, "P") == {"text": "D"}
    titles = ["Dense model", "Dense model, 8 bits", small.title]
    entries = entries_of(lineup, found)
    assert [one.title for one in entries] == titles, "measured or chosen, it stands there once"
    assert entries[2].numbers["ppl"] == 60.0 and entries[2].reference["latency_ms"] == 412.0
    both = entries_of(line_up(found, ["dense:int8", "a:int8"], "demo"), found)
    assert [one.numbers["ppl"] for one in both] == [26.5, 60.0]
    assert both[1].reference["latency_ms"] == 600.0, "against the first model, which is in 8 bits"


def test_a_dense_model_in_8_bits_without_a_run_has_what_was_measured_of_it(tmp_path):
    measured = RunSpec(goal="evaluate", model=ModelSpec(source="/models/x"))
    make_run(tmp_path, "b", measured, metrics={"ppl": 9.0, "ppl_int8": 9.5, "params": 10, "memory_gib": 2.0})
    found = records(tmp_path)
    (small,) = line_up(found, ["dense:int8"], "/models/x").contenders
    assert numbers(small, found) == {"ppl": 9.5, "params": 10}


def test_perplexities_are_found_window_by_window_where_they_were_kept(tmp_path):
    errors = {"ppl_stderr_pruned": 4.0, "ppl_int8_before": 26.5}
    path = make_run(tmp_path, "a", metrics={**RECOVERED, **errors})
    kept = {
        side: Perplexity(ppl, 3.0, 16, 8, "a", (2.9, 3.1))
        for side, ppl in (("dense", 26.2), ("dense int8", 26.5), ("pruned", 80.0))
    }
    for side, one in kept.items():
        keep_perplexities(path, side, [one])
    found = records(tmp_path)
    dense, small, before, after = columns(line_up(found, ["dense", "a"], "demo").contenders)
    assert [perplexity_of(one, found) for one in (dense, small, before)] == list(kept.values())
    assert numbers(before, found)["ppl_stderr"] == 4.0
    assert perplexity_of(after, found) == Perplexity(59.2, math.log(59.2), 8192, 256), "its windows are gone"
    measured = RunSpec(goal="evaluate", model=ModelSpec(source="/models/x"))
    keep_perplexities(make_run(tmp_path, "b", measured, metrics={"ppl": 9.0}), "model", [kept["dense"]])
    found = records(tmp_path)
    (alone,) = line_up(found, ["dense"], "/models/x").contenders
    assert perplexity_of(alone, found) == kept["dense"]


def test_times_are_found_round_by_round_where_they_were_kept(tmp_path):
    path = make_run(tmp_path, "a", metrics={**RECOVERED, "ppl_int8_before": 26.5})
    kept = {
        side: efficiency([ms, ms + 1, ms + 2], [9.0, 9.1, 9.2])
        for side, ms in (("dense", 400.0), ("dense int8", 500.0), ("recovered", 300.0))
    }
    keep_efficiency(path, kept)
    found = records(tmp_path)
    lineup = line_up(found, ["dense", "a"], "demo")
    dense, small, before, after = columns(lineup.contenders)
    assert [times_of(one, found) for one in (dense, small, after)] == list(kept.values())
    assert times_of(before, found) == kept["recovered"], "training leaves the size as it was"
    assert [one.reference_times for one in entries_of(lineup, found)] == [kept["dense"]] * 4
    measured = RunSpec(goal="evaluate", model=ModelSpec(source="/models/x"))
    other = make_run(tmp_path, "b", measured, metrics={"ppl": 9.0})
    (alone,) = line_up(records(tmp_path), ["dense"], "/models/x").contenders
    assert times_of(alone, records(tmp_path)) is None
    keep_efficiency(other, {"model": kept["dense"]})
    assert times_of(alone, records(tmp_path)) == kept["dense"]
    (path / "efficiency.json").write_text("{")
    assert times_of(dense, found) is None


def test_later_measurements_of_the_same_model_add_tasks(tmp_path):
    path = make_run(tmp_path, "a", metrics=MEASURED, created=1.0)
    write_benchmarks(path, dense=[task("piqa", "10")], pruned=[task("piqa", "00")])
    later = RunSpec(goal="evaluate", model=ModelSpec(source=str(path)))
    write_benchmarks(
        make_run(tmp_path, "b", later, created=2.0), model=[task("piqa", "11"), task("boolq", "11")]
    )
    found = records(tmp_path)
    (pruned,) = line_up(found, ["a"], "demo").contenders
    assert {name: one.value for name, one in scores(pruned, found).items()} == {"piqa": 0.0, "boolq": 1.0}


def test_damaged_benchmarks_leave_the_rest(tmp_path):
    path = make_run(tmp_path, "a", metrics=MEASURED)
    (path / "benchmarks.json").write_text("{")
    found = records(tmp_path)
    (pruned,) = line_up(found, ["a"], "demo").contenders
    assert scores(pruned, found) == {} and numbers(pruned, found)["ppl"] == 59.2


def test_other_tokenizers_are_noticed(tmp_path):
    for name, words in (("x", ["a", "b"]), ("y", ["a", "c"])):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "tokenizer.json").write_text(json.dumps({"version": name, "model": {"vocab": words}}))
        spec = RunSpec(model=ModelSpec(source=str(folder)))
        make_run(tmp_path / "runs", f"of-{name}", spec, metrics=MEASURED)
    found = records(tmp_path / "runs")
    lineup = line_up(found, ["of-x", "of-y"], "demo")
    assert lineup.strange == {"of-y"} and "tokenizer" in lineup.notes[0]
    assert not line_up(found, ["dense", "of-x"], "demo").strange
    same = {"version": "z", "model": {"vocab": ["a", "b"]}}
    (tmp_path / "models" / "y" / "tokenizer.json").write_text(json.dumps(same, indent=3))
    assert not line_up(found, ["of-x", "of-y"], "demo").strange


def test_kept_answers_are_found_by_prompt_and_side(tmp_path):
    path = make_run(tmp_path, "a", metrics=RECOVERED)
    sample = {"prompt": "P", "dense": {"text": "D"}, "pruned": {"text": "Q"}, "recovered": {"text": "R"}}
    (path / "samples.json").write_text(json.dumps([sample]))
    dense, recovered = line_up(records(tmp_path), ["dense", "a"], "demo").contenders
    assert (kept_answer(dense, "P")["text"], kept_answer(recovered, "P")["text"]) == ("D", "R")
    assert kept_answer(dense, "other") == {}


def test_a_model_that_was_only_measured_stands_beside_pruned_ones_as_a_baseline(tmp_path):
    """LLM-Pruner's Tables 8 and 9 set other models of the same size beside the pruned one."""
    cut = make_run(tmp_path, "a", metrics=MEASURED, created=1.0)
    for name, source, created in (
        ("small", "hub/small-3b", 2.0), ("again", "hub/small-3b", 3.0),
        ("of-a", str(cut), 4.0), ("base", "demo", 5.0),
    ):  # fmt: skip
        spec = RunSpec(goal="evaluate", model=ModelSpec(source=source))
        path = make_run(
            tmp_path, name, spec, metrics={"ppl": 40.0, "params": 860, "latency_ms": 9.0}, created=created
        )
        write_benchmarks(path, model=[task("piqa", "110")])
    found = records(tmp_path)
    offered = [
        ("Measured: small-3b · again", "again"),
        ("In 8 bits: Measured: small-3b · again", "again:int8"),
    ]
    assert [choice for choice in choices(found) if "small-3b" in choice[0]] == offered
    lineup = line_up(found, ["dense", "a", "again", "gone"], "demo")
    baseline = lineup.contenders[2]
    assert (baseline.title, baseline.source, baseline.side) == ("small-3b", "hub/small-3b", "dense")
    assert numbers(baseline, found)["params"] == 860 and scores(baseline, found)["piqa"].n == 3
    assert len(lineup.notes) == 2 and "no run gone" in lineup.notes[0] and "tokenizer" in lineup.notes[1]
    info = compare_info(entries_of(lineup, found))
    cells = {row.name: row.cells[2] for row in info.rows}
    assert cells["params"].verdict and cells["ppl"].verdict == "refused"
    assert cells["latency_ms"].verdict == "refused", "another run's times"


def test_models_that_were_only_measured_can_be_compared_with_each_other(tmp_path):
    for created, source in ((1.0, "hub/x"), (2.0, "hub/y"), (3.0, "hub/z")):
        spec = RunSpec(goal="evaluate", model=ModelSpec(source=source))
        make_run(tmp_path, source[-1], spec, metrics={"ppl": 9.0, "latency_ms": 5.0}, created=created)
    found = records(tmp_path)
    assert keys_of("", "", found) == ["z", "y"], "the two measured last"
    info = compare_info(entries_of(line_up(found, ["z", "y"], "demo"), found))
    assert next(row for row in info.rows if row.name == "latency_ms").cells[1].verdict == "refused"


def test_which_8_bits_they_are_is_said(tmp_path):
    small = {"ppl_int8_before": 26.5, "ppl_int8_after": 60.0}
    kinds = {"kind_int8_before": "llm_int8", "kind_int8_after": "llm_int8"}
    for name, metrics, told in (("a", {**small, **kinds}, "LLM.int8()"), ("b", small, "weights only")):
        make_run(tmp_path, name, metrics={**RECOVERED, **metrics})
        found = records(tmp_path)
        notes = compare_info(entries_of(line_up(found, ["dense", name], "demo"), found)).notes
        assert [note for note in notes if note.startswith(f"In 8 bits: {told}")], notes
