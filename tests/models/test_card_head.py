"""What the hub reads of a model's card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import RepoCard

from core.models.card_head import head, hub_data, inherited


def read(facts: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = RepoCard(f"---\n{head('tiny', facts)}\n---\n").data.to_dict()
    return data


def test_measured_scores_stand_there_with_their_errors() -> None:
    facts = {
        "ppl_after": 25.5, "ppl_stderr_after": 0.5, "ppl_text": "WikiText-2", "ppl_window": 256,
        "base_model": "org/dense", "license": "other", "license_name": "terms", "datasets": ["allenai/c4"],
        "tasks_after": {"arc": {"metric": "acc", "acc": 0.25, "stderr": 0.01, "n": 40, "source": "folder"}},
    }  # fmt: skip
    data = read(facts)
    assert data["pipeline_tag"] == "text-generation" and data["datasets"] == ["allenai/c4"]
    assert (data["base_model"], data["base_model_relation"]) == ("org/dense", "finetune")
    assert (data["license"], data["license_name"]) == ("other", "terms")
    perplexity, task = (row["metrics"][0] for row in data["model-index"][0]["results"])
    assert (perplexity["type"], perplexity["value"], perplexity["args"]["stderr"]) == (
        "perplexity",
        25.5,
        0.5,
    )
    assert (task["type"], task["value"], task["args"]["stderr"]) == ("acc", 0.25, 0.01)
    assert "standard error 0.5" in perplexity["name"] and task["args"]["n"] == 40


@pytest.mark.parametrize("value", [float("inf"), float("nan"), None])
def test_what_is_no_number_and_what_is_not_known_is_left_out(value: float | None) -> None:
    data = read({"ppl_after": value, "ppl_text": "speeches"})
    assert set(data) == {"library_name", "pipeline_tag", "tags"}


def test_a_licence_and_the_first_base_are_handed_on(tmp_path: Path) -> None:
    assert inherited(None, "org/dense") == {"base_model": "org/dense"}
    text = "---\nlicense: mit\nbase_model: org/first\ndatasets: [org/text]\ntags: [x]\n---\n"
    (tmp_path / "README.md").write_text(text, "utf-8")
    assert inherited(tmp_path, "org/second") == {"license": "mit", "base_model": "org/second"}
    (tmp_path / "plan.json").touch()
    pruned = {"license": "mit", "base_model": "org/first", "datasets": ["org/text"]}
    assert inherited(tmp_path) == pruned
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n", "utf-8")
    assert inherited(tmp_path) == {}


def test_data_of_the_hub_is_named_and_files_are_not(tmp_path: Path) -> None:
    here = tmp_path / "a.txt"
    here.touch()
    names = ("wikitext2", "bundled", None, "wikitext2:::text", "org/own:en:train", str(here))
    assert hub_data(*names) == ["Salesforce/wikitext", "org/own"]
