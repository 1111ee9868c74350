"""Benchmarks: what cannot be scored is refused, and nothing that was measured is lost."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from core.errors import ArtifactError, DataError, InputError, StopRequested, UnknownNameError
from core.evaluate.benchmarks import run_benchmarks
from core.evaluate.task_bundled import bundled_spec
from core.evaluate.task_lm import quiet
from core.results.quoted import COMMONSENSE
from core.results.tasks import BENCHMARKS, keep_benchmarks, read_benchmarks
from tests.evaluate.scoring import BOTH, NOT_OURS, directly, same_scores, tiny

pytestmark = [pytest.mark.usefixtures("offline"), *NOT_OURS]


def test_unknown_tasks_come_with_suggestions():
    with pytest.raises(UnknownNameError, match="Did you mean 'hellaswag'"):
        run_benchmarks(None, None, ["helaswag"])
    with pytest.raises(UnknownNameError, match="bundled_capitals"):
        run_benchmarks(None, None, ["bundled_capital"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": []}, "No task was named"),
        ({"limit": 0}, "limit must be"),
        ({"num_fewshot": -1}, "num_fewshot must be"),
        ({"batch_size": "many"}, "batch size must be"),
        ({"chat": True}, "no chat template"),
        ({"num_fewshot": 10_000, "limit": 1}, r"bundled_capitals has \d+ examples .* got num_fewshot 10000"),
    ],
)
def test_bad_settings_are_refused(model, byte_tokenizer, settings, message):
    with pytest.raises(InputError, match=message):
        run_benchmarks(model, byte_tokenizer, **{"tasks": BOTH, **settings})


def test_a_task_too_long_for_the_model_is_refused_and_the_others_kept(byte_tokenizer):
    short = tiny(max_position_embeddings=128)
    result = run_benchmarks(short, byte_tokenizer, BOTH, limit=4, batch_size=8)
    assert list(result.tasks) == ["bundled_capitals"]
    assert "the model has 128" in result.refused["bundled_next_sentence"]
    with pytest.raises(InputError, match=r"prompt needs \d+ tokens of context"):
        run_benchmarks(short, byte_tokenizer, BOTH[1:], limit=4, batch_size=8)
    short = tiny(max_position_embeddings=320)
    cut = run_benchmarks(short, byte_tokenizer, BOTH[1:], limit=4, batch_size=8, truncate=True).tasks[BOTH[1]]
    raw = directly(short, byte_tokenizer, [bundled_spec(BOTH[1])[0]], limit=4)
    same_scores(cut, raw["results"][BOTH[1]])
    assert cut.truncated > 0


def test_an_interrupted_benchmark_keeps_what_is_done(model, byte_tokenizer, tmp_path):
    def stop_in_the_second(done: int, total: int) -> None:
        assert total == 2000
        if done > 1200:
            raise StopRequested("enough")

    with pytest.raises(StopRequested):
        run_benchmarks(
            model, byte_tokenizer, BOTH, limit=6, cache_dir=tmp_path, on_progress=stop_in_the_second
        )
    seen: list[tuple[int, int]] = []
    done: list[str] = []
    again = run_benchmarks(
        model, byte_tokenizer, BOTH, limit=6, cache_dir=tmp_path,
        on_progress=lambda *step: seen.append(step), on_task=lambda result: done.append(result.task),
    )  # fmt: skip
    assert [again.tasks[name].cached for name in BOTH] == [True, False]
    assert (done, seen[0], seen[-1]) == (BOTH, (0, 2000), (2000, 2000))
    assert seen == sorted(seen) and len(seen) > 5
    fresh = run_benchmarks(model, byte_tokenizer, BOTH, limit=6)
    for name in BOTH:
        assert replace(again.tasks[name], cached=False, seconds=0) == replace(fresh.tasks[name], seconds=0)


def test_the_cache_knows_weights_masks_and_settings(byte_tokenizer, tmp_path):
    model = tiny()

    def cached(**settings) -> bool:
        arguments = {"limit": 3, "cache_dir": tmp_path, **settings}
        return run_benchmarks(model, byte_tokenizer, BOTH[:1], **arguments).tasks[BOTH[0]].cached

    assert [cached(), cached(), cached(limit=4), cached(num_fewshot=1), cached(seed=1)] == [
        False, True, False, False, False,
    ]  # fmt: skip
    mask = model.lm_head.register_forward_pre_hook(lambda module, args: (args[0] * 0.5,))
    assert [cached(), cached()] == [False, True]
    mask.remove()
    assert cached()
    with torch.no_grad():
        model.lm_head.weight[5, 0] += 1
    assert not cached()
    for file in tmp_path.iterdir():
        file.write_text("{")
    assert [cached(), cached()] == [False, True]


def test_a_hub_that_cannot_be_reached_is_tried_once(model, byte_tokenizer, monkeypatch):
    import datasets

    tried = []
    load = datasets.load_dataset

    def unreachable(path, *rest, **named):
        if path == "json":
            return load(path, *rest, **named)
        tried.append(path)
        raise ConnectionError(f"Couldn't reach {path}")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    result = run_benchmarks(model, byte_tokenizer, ["commonsense", "bundled_capitals"], limit=2)
    assert (len(tried), list(result.tasks), set(result.refused)) == (1, BOTH[:1], set(COMMONSENSE))
    assert "--benchmarks-dir" in result.refused["piqa"]
    with pytest.raises(DataError, match="cannot be read from the hub"):
        run_benchmarks(model, byte_tokenizer, ["piqa"])


def test_stdout_and_tokenizer_are_left_alone(model, byte_tokenizer, capfd):
    import copy

    bare = copy.deepcopy(byte_tokenizer)
    bare.pad_token = None
    run_benchmarks(model, bare, BOTH[:1], limit=2, batch_size="auto")
    assert bare.pad_token is None
    assert capfd.readouterr() == ("", "")
    level = logging.getLogger("lm_eval").level
    with quiet():
        print("what lm-eval prints")
    assert capfd.readouterr() == ("", "what lm-eval prints\n")
    assert logging.getLogger("lm_eval").level == level


def test_records_survive_the_disk_and_say_what_they_are(model, byte_tokenizer, tmp_path):
    result = run_benchmarks(model, byte_tokenizer, BOTH, limit=3, batch_size=8)
    keep_benchmarks(tmp_path, "model", result)
    assert read_benchmarks(tmp_path) == {"model": result}
    row = json.loads(json.dumps(result.summary()))["bundled_capitals"]
    assert {"acc", "acc_norm", "stderr", "n", "version", "num_fewshot", "limit", "template"} <= set(row)
    assert (row["source"], row["own_task"], row["n"], row["stderr"]) == (
        "bundled",
        True,
        3,
        row["acc_stderr"],
    )
    (tmp_path / BENCHMARKS).write_text('{"model": {"tasks": {"piqa": {}}}}')
    with pytest.raises(ArtifactError, match="run the benchmarks again"):
        read_benchmarks(tmp_path)


def test_nothing_heavy_is_imported_before_it_is_used():
    code = (
        "import sys, core.results.tasks; assert 'torch' not in sys.modules;"
        "import core.evaluate.benchmarks; assert not {'lm_eval', 'torch', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
