"""Small models scored directly by lm-eval, and the rows they are scored on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.results.tasks import TaskResult
from tests.conftest import llama_config, random_model

#: lm-eval and the packages it brings warn of each other's age.
NOT_OURS = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
BOTH = ["bundled_capitals", "bundled_next_sentence"]
PIQA = [{"goal": f"the {i} of", "sol1": "a to", "sol2": "in it is that", "label": i % 2} for i in range(6)]


def tiny(**changes):
    return random_model(llama_config(vocab_size=300, **{"max_position_embeddings": 2048, **changes}))


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
