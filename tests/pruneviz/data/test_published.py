from __future__ import annotations

import pytest

from pruneviz.data.published import published_table, published_tables

TASKS = ("boolq", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
#: (table, row) whose printed average is not the mean of the row; `assets/published/README.md` lists them too.
PRINTED_SO = {
    ("adaptive_estimation_fusion_table_01", 1), ("adaptive_estimation_fusion_table_04", 0),
    ("adaptive_estimation_fusion_table_07", 7), ("adaptive_estimation_fusion_table_08", 0),
    ("greedy_output_approximation_table_01", 0), ("greedy_output_approximation_table_01", 6),
    ("nuteprune_table_03", 8), ("nuteprune_table_04", 3),
}  # fmt: skip
#: Table, row, column, what the paper prints.
SPOTS = [
    ("llm_pruner_table_01", 3, "wikitext2_ppl", "27.51"),
    ("llm_pruner_table_01", 7, "tuned", "no"),
    ("llm_pruner_table_01", 11, "average", "59.23"),
    ("llm_pruner_table_02", 8, "arc_easy", "71.09"),
    ("llm_pruner_table_03", 4, "latency", "37.54s"),
    ("llm_pruner_table_04", 0, "sparsity_percent", "0"),
    ("llm_pruner_table_04", 1, "sparsity_percent", "20"),
    ("llm_pruner_table_04", 2, "sparsity_percent", "20"),
    ("llm_pruner_table_13", 3, "memory", "5444.37MiB"),
    ("llm_pruner_table_15", 7, "wikitext2_ppl", "17.88"),
    ("greedy_output_approximation_table_01", 11, "boolq", "70.12"),
    ("greedy_output_approximation_table_02", 6, "pruned_heads", "204"),
    ("greedy_output_approximation_table_03", 27, "ptb_ppl", "305.24"),
    ("adaptive_estimation_fusion_table_01", 4, "arc_challenge", "41.20"),
    ("adaptive_estimation_fusion_table_08", 7, "latency", "43.11s"),
    ("nuteprune_table_03", 12, "average_new_harness", "64.39"),
    ("nuteprune_table_07", 2, "mmlu_5_shot", "39.37"),
    ("nuteprune_table_16", 31, "intermediate_size", "5164"),
    ("nuteprune_table_17", 26, "heads", "2"),
    ("nuteprune_table_17", 15, "intermediate_size", ""),
]


def test_every_table_loads_and_names_its_source():
    tables = published_tables()
    assert len(tables) == 45 and len({table.name for table in tables}) == 45
    for table in tables:
        assert table.rows and "arXiv" in table.source
        assert table.name.endswith(f"_table_{table.number:02d}")


@pytest.mark.parametrize(("name", "row", "column", "printed"), SPOTS)
def test_cells_are_what_the_papers_print(name, row, column, printed):
    table = published_table(name)
    assert table is not None and table.column(column)[row] == printed


def test_a_printed_average_is_the_mean_of_its_row():
    """Ten numbers a row that agree with each other were not misread."""
    off, checked = set(), 0
    for table in published_tables():
        average = "average" if "average" in table.columns else "average_new_harness"
        tasks = [name for name in table.columns if name in TASKS]
        if average not in table.columns or len(tasks) < 6:
            continue
        for index, row in enumerate(table.rows):
            cell = dict(zip(table.columns, row, strict=True))
            mean = sum(float(cell[task]) for task in tasks) / len(tasks)
            checked += 1
            if abs(mean - float(cell[average])) > 0.015:
                off.add((table.name, index))
    assert off == PRINTED_SO and checked > 190


def test_learned_widths_are_32_layers_each():
    for name in ("nuteprune_table_16", "nuteprune_table_17"):
        table = published_table(name)
        assert table.column("layer") == tuple(str(layer) for layer in range(1, 33))


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("source,table,a\nP,1,2,3\n")
    with pytest.raises(ValueError, match="is no table"):
        published_tables(tmp_path)
