"""The scores are lm-eval's to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import InputError
from core.evaluate.benchmarks import run_benchmarks
from core.evaluate.task_bundled import bundled_spec
from tests.evaluate.scoring import BOTH, NOT_OURS, PIQA, directly, same_scores, tiny, write_rows

pytestmark = [pytest.mark.usefixtures("offline"), *NOT_OURS]


def test_scores_equal_those_of_lm_eval(model, byte_tokenizer):
    ours = run_benchmarks(model, byte_tokenizer, BOTH, limit=12, batch_size=8)
    for name in BOTH:
        raw = directly(model, byte_tokenizer, [bundled_spec(name)[0]], limit=12)
        same_scores(ours.tasks[name], raw["results"][name])
        rows = [row[ours.tasks[name].metric] for row in raw["samples"][name]]
        assert [sample.right for sample in ours.tasks[name].samples] == [bool(row) for row in rows]
    metrics = [ours.tasks[name].metrics for name in BOTH]
    assert any(value not in (0, 1) for scores in metrics for value in scores.values())


def test_few_shot_prompts_equal_those_of_lm_eval(model, byte_tokenizer, monkeypatch):
    from lm_eval.models.huggingface import HFLM

    asked: list[list[tuple[str, str]]] = []
    score = HFLM._loglikelihood_tokens

    def spy(self, requests, **settings):
        asked.append([request[0] for request in requests])
        return score(self, requests, **settings)

    monkeypatch.setattr(HFLM, "_loglikelihood_tokens", spy)
    ours = run_benchmarks(model, byte_tokenizer, BOTH[:1], limit=6, batch_size=8, num_fewshot=3).tasks[
        BOTH[0]
    ]
    raw = directly(model, byte_tokenizer, [bundled_spec(BOTH[0])[0]], limit=6, num_fewshot=3)
    run_benchmarks(model, byte_tokenizer, BOTH[:1], limit=6, batch_size=8, num_fewshot=3, seed=1)
    same_scores(ours, raw["results"][BOTH[0]])
    assert ours.num_fewshot == 3
    assert asked[0] == asked[1] != asked[2]


def test_a_mirrored_task_keeps_the_stock_definition(model, byte_tokenizer, tmp_path):
    write_rows(tmp_path / "piqa", validation=PIQA)
    ours = run_benchmarks(model, byte_tokenizer, ["piqa"], batch_size=8, benchmarks_dir=tmp_path).tasks[
        "piqa"
    ]
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
    raw = directly(model, byte_tokenizer, group, task_manager=manager)
    same_scores(ours, raw["results"]["piqa"])
    assert (ours.source, ours.version, ours.metric) == ("folder", "1.0", "acc")
    assert ours.samples[0].question == "Question: the 0 of\nAnswer:"
    assert ours.samples[1].answer == "in it is that"


def test_generated_answers_equal_those_of_lm_eval(byte_tokenizer, tmp_path):
    import lm_eval
    from lm_eval.tasks import TaskManager

    rows = [{"input": "Turn left. Do you return?", "target": "No"}, {"input": "Stay.", "target": "Yes"}]
    where, name, model = tmp_path / "bbh" / "navigate", "bbh_fewshot_navigate", tiny()
    write_rows(where, test=rows)
    ours = run_benchmarks(model, byte_tokenizer, [name], batch_size=8, benchmarks_dir=tmp_path).tasks[name]
    stock = Path(lm_eval.__file__).parent / "tasks" / "bbh" / "fewshot"
    manager = TaskManager(include_defaults=False, include_path=str(stock))
    files = {"data_files": {"test": str(where / "test.jsonl")}}
    spec = {"task": name, "dataset_path": "json", "dataset_name": None, "dataset_kwargs": files}
    raw = directly(model, byte_tokenizer, [{"group": "local", "task": [spec]}], task_manager=manager)
    theirs = [row["filtered_resps"][0] for row in raw["samples"][name]]
    assert (ours.num_fewshot, ours.metrics) == (3, {"exact_match": raw["results"][name]["exact_match,none"]})
    assert [sample.given for sample in ours.samples] == theirs
    assert [sample.answer for sample in ours.samples] == ["No", "Yes"]
    for context, reason in ((600, "prompt needs"), (200, "answer may take 256")):
        short = tiny(max_position_embeddings=context)
        with pytest.raises(InputError, match=reason):
            run_benchmarks(short, byte_tokenizer, [name], batch_size=8, benchmarks_dir=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["piqa", "winogrande", "arc_easy"])
def test_the_demo_model_scores_as_with_lm_eval(shared_data, task):
    import lm_eval
    from lm_eval.tasks import TaskManager

    from core.models.load import load

    demo, folder = load("demo"), shared_data / "benchmarks"
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
