"""Benchmarks: the scores are lm-eval's to the last bit, and nothing that was measured is lost."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.errors import ArtifactError, DataError, InputError, StopRequested, UnknownNameError
from core.evaluate.benchmarks import run_benchmarks
from core.evaluate.task_bundled import bundled_spec
from core.evaluate.task_lm import quiet
from core.evaluate.task_results import BenchmarkResult, TaskResult
from core.evaluate.tasks import COMMONSENSE
from tests.conftest import llama_config, random_model

pytestmark = [
    pytest.mark.usefixtures("offline"),
    # lm-eval and the packages it brings warn of each other's age
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
BOTH = ["bundled_capitals", "bundled_next_sentence"]
PIQA = [{"goal": f"the {i} of", "sol1": "a to", "sol2": "in it is that", "label": i % 2} for i in range(6)]
MMLU = [{"question": f"what is {i}", "choices": [*"wxyz"], "answer": i % 4} for i in range(6)]


@pytest.fixture(scope="module")
def tokenizer():
    """A tokenizer of bytes: every word has tokens of its own, so scores differ."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    raw = Tokenizer(models.BPE(vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def tiny(**changes):
    return random_model(llama_config(vocab_size=300, **{"max_position_embeddings": 2048, **changes}))


@pytest.fixture(scope="module")
def model():
    return tiny()


def write_rows(folder: Path, **splits: list[dict]) -> Path:
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def directly(model, tokenizer, tasks, **settings):
    """lm-eval's own call."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    if not all(isinstance(task, str) for task in tasks) and "group" not in tasks[0]:
        settings["task_manager"] = TaskManager(include_defaults=False)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8)
    return lm_eval.simple_evaluate(model=lm, tasks=tasks, **settings)


def same_scores(ours: TaskResult, theirs: dict) -> None:
    for metric in ours.metrics:
        assert ours.metrics[metric] == theirs[f"{metric},none"]
        assert ours.stderrs[metric] == theirs[f"{metric}_stderr,none"]
    assert ours.n == theirs["sample_len"]


def test_scores_equal_those_of_lm_eval(model, tokenizer):
    ours = run_benchmarks(model, tokenizer, BOTH, limit=12, batch_size=8)
    for name in BOTH:
        raw = directly(model, tokenizer, [bundled_spec(name)[0]], limit=12)
        same_scores(ours.tasks[name], raw["results"][name])
        rows = [row[ours.tasks[name].metric] for row in raw["samples"][name]]
        assert [sample.right for sample in ours.tasks[name].samples] == [bool(row) for row in rows]
    metrics = [ours.tasks[name].metrics for name in BOTH]
    assert any(value not in (0, 1) for scores in metrics for value in scores.values())


def test_few_shot_prompts_equal_those_of_lm_eval(model, tokenizer, monkeypatch):
    from lm_eval.models.huggingface import HFLM

    asked: list[list[tuple[str, str]]] = []
    score = HFLM._loglikelihood_tokens

    def spy(self, requests, **settings):
        asked.append([request[0] for request in requests])
        return score(self, requests, **settings)

    monkeypatch.setattr(HFLM, "_loglikelihood_tokens", spy)
    ours = run_benchmarks(model, tokenizer, BOTH[:1], limit=6, batch_size=8, num_fewshot=3).tasks[BOTH[0]]
    raw = directly(model, tokenizer, [bundled_spec(BOTH[0])[0]], limit=6, num_fewshot=3)
    run_benchmarks(model, tokenizer, BOTH[:1], limit=6, batch_size=8, num_fewshot=3, seed=1)
    same_scores(ours, raw["results"][BOTH[0]])
    assert ours.num_fewshot == 3
    assert asked[0] == asked[1] != asked[2]


def test_a_mirrored_task_keeps_the_stock_definition(model, tokenizer, tmp_path):
    write_rows(tmp_path / "piqa", validation=PIQA)
    ours = run_benchmarks(model, tokenizer, ["piqa"], batch_size=8, benchmarks_dir=tmp_path).tasks["piqa"]
    spec = {
        "task": "piqa",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"validation": str(tmp_path / "piqa/validation.jsonl")}},
        "training_split": None,
    }
    import lm_eval
    from lm_eval.tasks import TaskManager

    stock = Path(lm_eval.__file__).parent / "tasks" / "piqa"
    manager = TaskManager(include_defaults=False, include_path=str(stock))
    group = [{"group": "local_piqa", "task": [spec]}]
    raw = directly(model, tokenizer, group, task_manager=manager)
    same_scores(ours, raw["results"]["piqa"])
    assert (ours.source, ours.version, ours.metric) == ("folder", "1.0", "acc")
    assert ours.samples[0].question == "Question: the 0 of\nAnswer:"
    assert ours.samples[1].answer == "in it is that"


def test_a_group_is_averaged_over_what_the_mirror_holds(model, tokenizer, tmp_path):
    from lm_eval.api.metrics import pooled_sample_stderr

    write_rows(tmp_path / "mmlu" / "anatomy", test=MMLU, dev=MMLU[:5])
    write_rows(tmp_path / "mmlu" / "astronomy", test=MMLU[:4], dev=MMLU[:5])
    result = run_benchmarks(model, tokenizer, ["mmlu"], batch_size=8, benchmarks_dir=tmp_path)
    whole, *parts = result.tasks.values()
    assert (whole.task, whole.parts, len(whole.absent)) == ("mmlu", ("mmlu_anatomy", "mmlu_astronomy"), 55)
    assert (whole.num_fewshot, [part.n for part in parts], whole.n) == (5, [6, 4], 10)
    right = [sample.right for part in parts for sample in part.samples]
    assert whole.value == pytest.approx(sum(right) / 10)
    assert whole.stderr == pooled_sample_stderr([part.stderr for part in parts], [6, 4])
    assert all(part.part_of == "mmlu" for part in parts)


def test_generated_answers_equal_those_of_lm_eval(tokenizer, tmp_path):
    import lm_eval
    from lm_eval.tasks import TaskManager

    rows = [{"input": "Turn left. Do you return?", "target": "No"}, {"input": "Stay.", "target": "Yes"}]
    where, name, model = tmp_path / "bbh" / "navigate", "bbh_fewshot_navigate", tiny()
    write_rows(where, test=rows)
    ours = run_benchmarks(model, tokenizer, [name], batch_size=8, benchmarks_dir=tmp_path).tasks[name]
    stock = Path(lm_eval.__file__).parent / "tasks" / "bbh" / "fewshot"
    manager = TaskManager(include_defaults=False, include_path=str(stock))
    files = {"data_files": {"test": str(where / "test.jsonl")}}
    spec = {"task": name, "dataset_path": "json", "dataset_name": None, "dataset_kwargs": files}
    raw = directly(model, tokenizer, [{"group": "local", "task": [spec]}], task_manager=manager)
    theirs = [row["filtered_resps"][0] for row in raw["samples"][name]]
    assert (ours.num_fewshot, ours.metrics) == (3, {"exact_match": raw["results"][name]["exact_match,none"]})
    assert [sample.given for sample in ours.samples] == theirs
    assert [sample.answer for sample in ours.samples] == ["No", "Yes"]
    for context, reason in ((600, "prompt needs"), (200, "answer may take 256")):
        short = tiny(max_position_embeddings=context)
        with pytest.raises(InputError, match=reason):
            run_benchmarks(short, tokenizer, [name], batch_size=8, benchmarks_dir=tmp_path)


def test_choices_that_come_first_are_all_in_the_question(model, tokenizer, tmp_path):
    row = {"sentence": "Sarah beat Maria so _ won.", "option1": "Sarah", "option2": "Maria", "answer": "1"}
    write_rows(tmp_path / "winogrande", validation=[row, {**row, "answer": "2"}])
    result = run_benchmarks(model, tokenizer, ["winogrande"], batch_size=8, benchmarks_dir=tmp_path)
    first, second = result.tasks["winogrande"].samples
    assert "so Sarah" in first.question and "so Maria" in first.question and "won." in first.question
    assert (first.answer.endswith("Sarah"), second.answer.endswith("Maria")) == (True, True)
    assert first.right == (first.given == first.answer)


@pytest.mark.parametrize(
    ("names", "splits", "missing"),
    [
        (["piqa"], {"piqa": ["train"]}, "piqa/validation.jsonl"),
        (["piqa"], {"boolq": ["validation"]}, "piqa/validation.jsonl"),
        (["mmlu"], {"mmlu/anatomy": ["test"]}, "mmlu/anatomy/dev.jsonl"),
    ],
)
def test_a_missing_file_is_named_before_anything_runs(tokenizer, tmp_path, names, splits, missing):
    for folder, held in splits.items():
        write_rows(tmp_path / folder, **dict.fromkeys(held, PIQA))
    with pytest.raises(DataError, match=missing):
        run_benchmarks(None, tokenizer, ["bundled_capitals", *names], benchmarks_dir=tmp_path)


def test_examples_need_the_split_they_are_drawn_from(tokenizer, tmp_path):
    write_rows(tmp_path / "piqa", validation=PIQA)
    with pytest.raises(DataError, match=r"piqa/train\.jsonl"):
        run_benchmarks(None, tokenizer, ["piqa"], num_fewshot=2, benchmarks_dir=tmp_path)


def test_a_mirror_that_is_no_folder_or_holds_damaged_rows(model, tokenizer, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        run_benchmarks(model, tokenizer, ["piqa"], benchmarks_dir=tmp_path / "nowhere")
    write_rows(tmp_path / "piqa", validation=[])
    (tmp_path / "piqa" / "validation.jsonl").write_text('{"goal": "a", "so')
    with pytest.raises(DataError, match=r"piqa cannot be read from .*validation\.jsonl"):
        run_benchmarks(model, tokenizer, ["piqa"], benchmarks_dir=tmp_path)


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
def test_bad_settings_are_refused(model, tokenizer, settings, message):
    with pytest.raises(InputError, match=message):
        run_benchmarks(model, tokenizer, **{"tasks": BOTH, **settings})


def test_a_task_too_long_for_the_model_is_refused_and_the_others_kept(tokenizer):
    short = tiny(max_position_embeddings=128)
    result = run_benchmarks(short, tokenizer, BOTH, limit=4, batch_size=8)
    assert list(result.tasks) == ["bundled_capitals"]
    assert "the model has 128" in result.refused["bundled_next_sentence"]
    with pytest.raises(InputError, match=r"prompt needs \d+ tokens of context"):
        run_benchmarks(short, tokenizer, BOTH[1:], limit=4, batch_size=8)
    short = tiny(max_position_embeddings=320)
    cut = run_benchmarks(short, tokenizer, BOTH[1:], limit=4, batch_size=8, truncate=True).tasks[BOTH[1]]
    raw = directly(short, tokenizer, [bundled_spec(BOTH[1])[0]], limit=4)
    same_scores(cut, raw["results"][BOTH[1]])
    assert cut.truncated > 0


def test_an_interrupted_benchmark_keeps_what_is_done(model, tokenizer, tmp_path):
    def stop_in_the_second(done: int, total: int) -> None:
        assert total == 2000
        if done > 1200:
            raise StopRequested("enough")

    with pytest.raises(StopRequested):
        run_benchmarks(model, tokenizer, BOTH, limit=6, cache_dir=tmp_path, on_progress=stop_in_the_second)
    seen: list[tuple[int, int]] = []
    done: list[str] = []
    again = run_benchmarks(
        model, tokenizer, BOTH, limit=6, cache_dir=tmp_path,
        on_progress=lambda *step: seen.append(step), on_task=lambda result: done.append(result.task),
    )  # fmt: skip
    assert [again.tasks[name].cached for name in BOTH] == [True, False]
    assert (done, seen[0], seen[-1]) == (BOTH, (0, 2000), (2000, 2000))
    assert seen == sorted(seen) and len(seen) > 5
    fresh = run_benchmarks(model, tokenizer, BOTH, limit=6)
    for name in BOTH:
        assert replace(again.tasks[name], cached=False, seconds=0) == replace(fresh.tasks[name], seconds=0)


def test_the_cache_knows_weights_masks_and_settings(tokenizer, tmp_path):
    model = tiny()

    def cached(**settings) -> bool:
        arguments = {"limit": 3, "cache_dir": tmp_path, **settings}
        return run_benchmarks(model, tokenizer, BOTH[:1], **arguments).tasks[BOTH[0]].cached

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


def test_a_hub_that_cannot_be_reached_is_tried_once(model, tokenizer, monkeypatch):
    import datasets

    tried = []
    load = datasets.load_dataset

    def unreachable(path, *rest, **named):
        if path == "json":
            return load(path, *rest, **named)
        tried.append(path)
        raise ConnectionError(f"Couldn't reach {path}")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    result = run_benchmarks(model, tokenizer, ["commonsense", "bundled_capitals"], limit=2)
    assert (len(tried), list(result.tasks), set(result.refused)) == (1, BOTH[:1], set(COMMONSENSE))
    assert "--benchmarks-dir" in result.refused["piqa"]
    with pytest.raises(DataError, match="cannot be read from the hub"):
        run_benchmarks(model, tokenizer, ["piqa"])


def test_stdout_and_tokenizer_are_left_alone(model, tokenizer, capfd):
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    run_benchmarks(model, bare, BOTH[:1], limit=2, batch_size="auto")
    assert bare.pad_token is None
    assert capfd.readouterr() == ("", "")
    level = logging.getLogger("lm_eval").level
    with quiet():
        print("what lm-eval prints")
    assert capfd.readouterr() == ("", "what lm-eval prints\n")
    assert logging.getLogger("lm_eval").level == level


def test_records_survive_json_and_say_what_they_are(model, tokenizer):
    result = run_benchmarks(model, tokenizer, BOTH, limit=3, batch_size=8)
    assert BenchmarkResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    row = json.loads(json.dumps(result.summary()))["bundled_capitals"]
    assert {"acc", "acc_norm", "stderr", "n", "version", "num_fewshot", "limit", "template"} <= set(row)
    assert (row["source"], row["own_task"], row["n"], row["stderr"]) == (
        "bundled",
        True,
        3,
        row["acc_stderr"],
    )
    with pytest.raises(ArtifactError):
        BenchmarkResult.from_json({"tasks": {"piqa": {}}})


def test_nothing_heavy_is_imported_before_it_is_used():
    code = (
        "import sys, core.evaluate.task_results; assert 'torch' not in sys.modules;"
        "import core.evaluate.benchmarks; assert not {'lm_eval', 'torch', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["piqa", "winogrande", "arc_easy"])
def test_the_demo_model_scores_as_with_lm_eval(shared_data, task):
    import lm_eval
    from lm_eval.tasks import TaskManager

    from core.models import load
    from core.spec import ModelSpec

    demo, folder = load(ModelSpec("demo")), shared_data / "benchmarks"
    ours = run_benchmarks(demo.model, demo.tokenizer, [task], limit=8, batch_size=8, benchmarks_dir=folder)
    split = "test" if task == "arc_easy" else "validation"
    files = {split: str(folder / task / f"{split}.jsonl")}
    changes = {"training_split": None, **({"validation_split": None} if split == "test" else {})}
    data = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    spec = {"task": task, **data, **changes}
    stock = Path(lm_eval.__file__).parent / "tasks" / task.split("_")[0]
    manager = TaskManager(include_defaults=False, include_path=str(stock))
    raw = directly(
        demo.model, demo.tokenizer, [{"group": "local", "task": [spec]}], limit=8, task_manager=manager
    )
    same_scores(ours.tasks[task], raw["results"][task])
