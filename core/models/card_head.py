"""The head of a model's card, which the hub reads: written for ours, and read of any."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData, metadata_load

from core.results.perplexity import by_text
from core.results.words import measured_on
from core.runs.artifacts import PLAN
from core.spec.texts import data_name

#: Of a base model's card -> what a card of ours goes on saying.
_OF_ANY = ("license", "license_name", "license_link", "language")
INHERITED = (*_OF_ANY, "base_model")
_TASK = "text-generation"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def read_head(folder: Path | None) -> dict[str, Any]:
    """What the head of a folder's README says; empty where there is none, or none that can be read."""
    if folder is None or not (folder / "README.md").is_file():
        return {}
    try:
        values: dict[str, Any] = metadata_load(folder / "README.md") or {}
    except (yaml.YAMLError, ValueError, OSError):
        return {}
    return values


def inherited(folder: Path | None, base: str | None = None) -> dict[str, Any]:
    """What a pruned model takes over from the card of the model that was pruned.

    Args:
        folder: where that model's files lie. A pruned one names its own base, and the data it was made with;
            what the card of any other names is one step too far back.
        base: its id on the hub, if it is from there.
    """
    own = (*INHERITED, "datasets") if folder is not None and (folder / PLAN).is_file() else _OF_ANY
    said = {name: value for name, value in read_head(folder).items() if name in own and value}
    return said | ({"base_model": base} if base else {})


def hub_data(*names: str | None) -> list[str]:
    """The ids on the hub of the data sets that these names are of, each once."""
    asked = [data_name(name) for name in names if name]
    ids = [name.named.hub if name.named else name.source for name in asked]
    return list(dict.fromkeys(each for each in ids if _HUB_ID.fullmatch(each) and not Path(each).exists()))


def head(name: str, facts: Mapping[str, Any]) -> str:
    """The YAML for a pruned model, without the lines of dashes.

    Args:
        facts: values under the names of `metrics.json`, `datasets`, and those of `INHERITED`.
    """
    own: dict[str, Any] = {key: facts[key] for key in INHERITED if facts.get(key)}
    if "base_model" in own:
        own["base_model_relation"] = "finetune"
    results = _results(facts)
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=_TASK,
        tags=["pruned"],
        datasets=facts.get("datasets") or None,
        model_name=name if results else None,
        eval_results=results or None,
        **own,
    )
    text: str = data.to_yaml()
    return text.rstrip()


def _results(facts: Mapping[str, Any]) -> list[EvalResult]:
    """Perplexity on every text and the score of every task, of the final model, with their errors."""
    results = []
    for row in by_text(facts):
        if _finite(row.get("ppl_after")):
            results.append(
                _result(
                    str(row["ppl_text"]),
                    "perplexity",
                    row["ppl_after"],
                    row.get("ppl_stderr_after"),
                    {"measured_on": measured_on(row)},
                )
            )
    for task, score in (facts.get("tasks_after") or {}).items():
        metric = score["metric"]
        if _finite(score.get(metric)):
            about = {"n": score["n"], "num_fewshot": score.get("num_fewshot"), "source": score["source"]}
            results.append(_result(task, metric, score[metric], score.get("stderr"), about))
    return results


def _result(
    text: str, metric: str, value: float, error: float | None, about: Mapping[str, Any]
) -> EvalResult:
    name = metric if error is None else f"{metric} (standard error {error:.4g})"
    return EvalResult(
        task_type=_TASK,
        dataset_type=re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "text",
        dataset_name=text,
        metric_type=metric,
        metric_value=value,
        metric_name=name,
        metric_args={**about, **({"stderr": error} if error is not None else {})},
    )


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
