"""Tasks read from a folder of files: groups, questions, and what is missing there."""

from __future__ import annotations

import pytest

from core.errors import DataError
from core.evaluate.benchmarks import run_benchmarks
from tests.evaluate.scoring import NOT_OURS, PIQA, write_rows

pytestmark = [pytest.mark.usefixtures("offline"), *NOT_OURS]
MMLU = [{"question": f"what is {i}", "choices": [*"wxyz"], "answer": i % 4} for i in range(6)]


def test_a_group_is_averaged_over_what_the_mirror_holds(model, byte_tokenizer, tmp_path):
    from lm_eval.api.metrics import pooled_sample_stderr

    write_rows(tmp_path / "mmlu" / "anatomy", test=MMLU, dev=MMLU[:5])
    write_rows(tmp_path / "mmlu" / "astronomy", test=MMLU[:4], dev=MMLU[:5])
    result = run_benchmarks(model, byte_tokenizer, ["mmlu"], batch_size=8, benchmarks_dir=tmp_path)
    whole, *parts = result.tasks.values()
    assert (whole.task, whole.parts, len(whole.absent)) == ("mmlu", ("mmlu_anatomy", "mmlu_astronomy"), 55)
    assert (whole.num_fewshot, [part.n for part in parts], whole.n) == (5, [6, 4], 10)
    right = [sample.right for part in parts for sample in part.samples]
    assert whole.value == pytest.approx(sum(right) / 10)
    assert whole.stderr == pooled_sample_stderr([part.stderr for part in parts], [6, 4])
    assert all(part.part_of == "mmlu" for part in parts)


def test_choices_that_come_first_are_all_in_the_question(model, byte_tokenizer, tmp_path):
    row = {"sentence": "Sarah beat Maria so _ won.", "option1": "Sarah", "option2": "Maria", "answer": "1"}
    write_rows(tmp_path / "winogrande", validation=[row, {**row, "answer": "2"}])
    result = run_benchmarks(model, byte_tokenizer, ["winogrande"], batch_size=8, benchmarks_dir=tmp_path)
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
def test_a_missing_file_is_named_before_anything_runs(byte_tokenizer, tmp_path, names, splits, missing):
    for folder, held in splits.items():
        write_rows(tmp_path / folder, **dict.fromkeys(held, PIQA))
    with pytest.raises(DataError, match=missing):
        run_benchmarks(None, byte_tokenizer, ["bundled_capitals", *names], benchmarks_dir=tmp_path)


def test_examples_need_the_split_they_are_drawn_from(byte_tokenizer, tmp_path):
    write_rows(tmp_path / "piqa", validation=PIQA)
    with pytest.raises(DataError, match=r"piqa/train\.jsonl"):
        run_benchmarks(None, byte_tokenizer, ["piqa"], num_fewshot=2, benchmarks_dir=tmp_path)


def test_a_mirror_that_is_no_folder_or_holds_damaged_rows(model, byte_tokenizer, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        run_benchmarks(model, byte_tokenizer, ["piqa"], benchmarks_dir=tmp_path / "nowhere")
    write_rows(tmp_path / "piqa", validation=[])
    (tmp_path / "piqa" / "validation.jsonl").write_text('{"goal": "a", "so')
    with pytest.raises(DataError, match=r"piqa cannot be read from .*validation\.jsonl"):
        run_benchmarks(model, byte_tokenizer, ["piqa"], benchmarks_dir=tmp_path)
