"""The command that makes each row of the papers' tables here, or why there is none.

python -m pruneviz.data.commands > docs/published.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pruneviz.data import commands_fusion, commands_greedy, commands_llm_pruner, commands_nuteprune
from pruneviz.data.command_pieces import Command, Row
from pruneviz.data.published import PublishedTable, published_tables

RULES: dict[str, Callable[[int, Row], Command]] = {
    "llm_pruner": commands_llm_pruner.command,
    "greedy_output_approximation": commands_greedy.command,
    "adaptive_estimation_fusion": commands_fusion.command,
    "nuteprune": commands_nuteprune.command,
}
#: Columns that tell one row of a table from the next.
NAMING = (
    "model", "sparsity_percent", "method", "tuned", "samples", "strategy", "tuning_samples", "tuned_modules",
    "step", "progressive", "distillation", "layer_loss", "stage_1", "stage_2", "sparsity_gap_percent",
    "snapshot_interval", "pruned_heads",
)  # fmt: skip
HEAD = """# A command for every published row

Written by `python -m pruneviz.data.commands`: what makes each row of the tables in `assets/published/` here.
The same commands are beside the rows on the Compare tab. What a ratio is a fraction of differs:

- LLM-Pruner's 20 % are 25 % of the groups of layers 4 to 29 (`--layers 4:30 --sparsity 0.25`), its 50 % are
  60 % of those of layers 3 to 30 (`--layers 3:31 --sparsity 0.6`);
- Greedy Output Approximation follows it, but in its Table 3 calls the first 25 %, and has 50 % of the groups;
- Adaptive Estimation Fusion's are of the groups of layers 4 to 29, with heads rounded down;
- NutePrune's are of the block parameters of all layers.

A 7B model needs a GPU. None of these commands was run from end to end; a test reads each as the command line
does.
"""


def commands(table: PublishedTable) -> tuple[Command, ...]:
    """One for each row of the table."""
    rule = RULES[table.paper]
    return tuple(rule(table.number, dict(zip(table.columns, row, strict=True))) for row in table.rows)


def row_name(table: PublishedTable, row: tuple[str, ...]) -> str:
    """What tells this row from the others, in words."""
    cells = dict(zip(table.columns, row, strict=True))
    return ", ".join(_word(name, cells[name]) for name in NAMING if cells.get(name))


def _word(name: str, cell: str) -> str:
    if name == "sparsity_percent":
        return f"{cell} %"
    if name in ("model", "method", "strategy", "tuned_modules"):
        return cell
    return f"{name.removesuffix('_percent').replace('_', ' ')} {cell}"


def markdown() -> str:
    """`docs/published.md`: rows that one command makes stand together."""
    return HEAD + "".join(line for table in published_tables() for line in _table(table))


def _table(table: PublishedTable) -> Iterator[str]:
    yield f"\n## {table.title}\n"
    together: dict[Command, list[str]] = {}
    for row, command in zip(table.rows, commands(table), strict=True):
        together.setdefault(command, []).append(row_name(table, row))
    widths = table.number in (16, 17) and table.paper == "nuteprune"
    for command, names in together.items():
        rows = f"{names[0]}: all layers" if widths else "; ".join(names)
        yield f"\n{rows}{f' ({command.note})' if command.note else ''}\n"
        if command.text:
            yield f"\n```sh\n{command.text}\n```\n"


if __name__ == "__main__":
    print(markdown(), end="")
