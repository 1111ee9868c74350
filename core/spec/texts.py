"""The data sets that have a name, and how another is named: source:config:split:column.

Nothing here reads anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from core.errors import DataError

#: Bundled texts: the part of each that calibrates shares nothing with the part that is measured.
IN_PARTS = BUNDLED, FACTBOOK, MIXED = "bundled", "factbook", "mixed"
#: For calibration only: text that the model writes itself, and no text at all.
SELF, NONE = "self", "none"
Part = Literal["calibration", "evaluation"]
#: A fold of a data set in file names and folders, and what else it is called there.
SPLITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
)


@dataclass(frozen=True)
class NamedText:
    """A data set that the papers use.

    Attributes:
        hub: its id on the hub, config: its configuration there, empty for the only one.
        calibrates, evaluates: the split that units are scored or a model is trained on, and the one that
            perplexity is measured on.
        columns: where its text stands; instructions are written one column after the other.
        licence: of the data; used: what the papers use it for.
        revision, files: the branch with its files, and their pattern, where the hub's main branch only has a
            loading script, which is never run.
        lines: how a plain text file of it is cut into the hub's rows: one a line, with its line end `kept`
            (an empty line is an empty row) or `stripped`; empty for one row a file.
    """

    title: str
    hub: str
    config: str
    calibrates: str
    evaluates: str
    columns: tuple[str, ...]
    licence: str
    used: str
    revision: str = ""
    files: str = ""
    lines: Literal["", "kept", "stripped"] = ""


#: Name -> data set.
NAMED: Mapping[str, NamedText] = MappingProxyType(
    {
        "wikitext2": NamedText(
            "WikiText-2", "Salesforce/wikitext", "wikitext-2-raw-v1", "train", "test", ("text",),
            "CC BY-SA 3.0, GFDL",
            "perplexity in all four papers (test); calibration of greedy output approximation (train)",
            lines="kept",
        ),
        "ptb": NamedText(
            "Penn Treebank", "ptb-text-only/ptb_text_only", "penn_treebank", "train", "validation",
            ("sentence",), "LDC User Agreement",
            "perplexity in LLM-Pruner, greedy output approximation and estimation fusion; as released on the "
            "validation split",
            revision="refs/convert/parquet", files="penn_treebank/{split}/*.parquet", lines="stripped",
        ),
        "c4": NamedText(
            "C4", "allenai/c4", "en", "train", "validation", ("text",), "ODC-BY",
            "NutePrune's training, the first documents; calibration of LLM-Pruner's release",
        ),
        "bookcorpus": NamedText(
            "BookCorpus", "bookcorpus/bookcorpus", "plain_text", "train", "train", ("text",), "unknown",
            "calibration in LLM-Pruner and greedy output approximation",
            revision="refs/convert/parquet", files="plain_text/{split}/*.parquet", lines="stripped",
        ),
        "alpaca": NamedText(
            "Alpaca (cleaned)", "yahma/alpaca-cleaned", "", "train", "train",
            ("instruction", "input", "output"), "CC BY 4.0",
            "recovery in LLM-Pruner and greedy output approximation, post fine-tuning in NutePrune",
        ),
        "lamini": NamedText(
            "LaMini-instruction", "MBZUAI/LaMini-instruction", "", "train", "train",
            ("instruction", "response"), "CC BY-NC 4.0", "recovery on more data in LLM-Pruner, Table 10",
        ),
    }
)  # fmt: skip
#: What a form offers to score or train on, and to measure on; anything else may be typed.
CALIBRATE_ON = (MIXED, BUNDLED, FACTBOOK, "c4", "bookcorpus", "wikitext2", "ptb", "alpaca", SELF, NONE)
TRAIN_ON = (MIXED, BUNDLED, FACTBOOK, "alpaca", "lamini", "c4", "wikitext2")
MEASURE_ON = (BUNDLED, FACTBOOK, "wikitext2", "ptb", "c4")


@dataclass(frozen=True)
class DataName:
    """A data set as it was asked for; config, split and column are empty where nothing was said."""

    source: str
    config: str = ""
    split: str = ""
    column: str = ""

    @property
    def named(self) -> NamedText | None:
        """What this name stands for; None for a file, a folder or an id of the hub."""
        return NAMED.get(self.source)

    def split_for(self, part: Part) -> str:
        """The split to read; empty where neither the name nor the table says one."""
        named = self.named
        usual = "" if named is None else named.calibrates if part == "calibration" else named.evaluates
        return self.split or usual

    def title(self, part: Part) -> str:
        """For people, e.g. `WikiText-2 (test)`; as it was typed where it has no name of its own."""
        if self.named is None:
            return ":".join((self.source, self.config, self.split, self.column)).rstrip(":")
        return f"{self.named.title} ({self.split_for(part)})"


def data_name(typed: str) -> DataName:
    """Read `source:config:split:column`. Raises DataError for more parts."""
    parts = typed.split(":")
    if len(parts) > 4:
        raise DataError(f"A data set is source:config:split:column, got '{typed}' with {len(parts)} parts.")
    return DataName(*parts)


def reads_the_same(typed: str) -> bool:
    """Whether this name is one text for calibration and for evaluation, not two parts of one."""
    if typed in IN_PARTS:
        return False
    named = NAMED.get(typed.partition(":")[0])
    if named is None:
        return True
    asked = data_name(typed)
    return asked.split_for("calibration") == asked.split_for("evaluation")
