"""The workbench's own tasks hold what they promise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.evaluate.task_bundled import bundled_spec
from tests.evaluate.scoring import BOTH

pytestmark = pytest.mark.usefixtures("offline")


def bundled_rows(name: str) -> list[dict]:
    path = Path(bundled_spec(name)[0]["dataset_kwargs"]["data_files"]["test"])
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_bundled_tasks_are_sound():
    for name in BOTH:
        rows = bundled_rows(name)
        assert len(rows) == bundled_spec(name)[1]["rows"] > 200
        assert all(len(set(row["choices"])) == 4 for row in rows)
        assert {row["label"] for row in rows} == {0, 1, 2, 3}
    answers = {row["country"]: row["choices"][row["label"]] for row in bundled_rows(BOTH[0])}
    known = {"France": "Paris", "Japan": "Tokyo", "Dominican Republic": "Santo Domingo"}
    assert known.items() <= answers.items()
    assert not {"South Africa", "Singapore", "Antarctica"} & set(answers)


def test_next_sentences_never_come_from_what_calibrates():
    from core.models.texts import calibration_text, evaluation_text

    scores, calibrates = (" ".join(part().text.split()) for part in (evaluation_text, calibration_text))
    for row in bundled_rows(BOTH[1])[::20]:
        assert all(choice in scores for choice in row["choices"])
        assert f"{row['context']} {row['choices'][row['label']]}" not in calibrates
