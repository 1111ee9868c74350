"""What the papers report: the tables in `assets/published/`, read and never computed with.

They stand beside our own numbers, labelled, and are never mixed with them.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pruneviz import ASSETS

FOLDER = ASSETS / "published"
#: Columns of every file that say where a row is from.
ORIGIN = ("source", "table")


@dataclass(frozen=True)
class PublishedTable:
    """One table of a paper.

    Attributes:
        name: the file's, e.g. `llm_pruner_table_01`.
        source: the paper with its arXiv number; number: the table's.
        columns: without those of `ORIGIN`; rows: one cell per column, as printed, empty where nothing is.
    """

    name: str
    source: str
    number: int
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def title(self) -> str:
        """`LLM-Pruner (arXiv 2305.11627), Table 1`."""
        return f"{self.source}, Table {self.number}"

    @property
    def paper(self) -> str:
        """How the names of this paper's tables begin: `llm_pruner`."""
        return self.name.rpartition("_table_")[0]

    def column(self, name: str) -> tuple[str, ...]:
        """One column from top to bottom. Raises ValueError if the table has none of this name."""
        index = self.columns.index(name)
        return tuple(row[index] for row in self.rows)


@lru_cache
def published_tables(folder: Path = FOLDER) -> tuple[PublishedTable, ...]:
    """All tables, by paper and number."""
    return tuple(_read(path) for path in sorted(folder.glob("*.csv")))


def published_table(name: str) -> PublishedTable | None:
    """The table with this name, or None."""
    return next((table for table in published_tables() if table.name == name), None)


def _read(path: Path) -> PublishedTable:
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    origin = len(ORIGIN)
    if tuple(head[:origin]) != ORIGIN or any(len(row) != len(head) for row in rows):
        raise ValueError(f"{path} is no table: it must begin with {ORIGIN} and have rows of equal length.")
    return PublishedTable(
        path.stem, rows[0][0], int(rows[0][1]), tuple(head[origin:]),
        tuple(tuple(row[origin:]) for row in rows),
    )  # fmt: skip
