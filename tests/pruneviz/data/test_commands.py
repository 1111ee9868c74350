"""Every published row has a command that the real command line takes, or says why not."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from core.cli.app import main
from core.spec.run import RunSpec
from core.stages.early import check_method
from pruneviz.data.command_pieces import Command
from pruneviz.data.commands import commands, markdown
from pruneviz.data.published import published_table, published_tables

DOC = Path(__file__).parents[3] / "docs" / "published.md"


def row(name: str, index: int) -> Command:
    table = published_table(name)
    assert table
    return commands(table)[index]


class Read(BaseException):
    """Instead of a run."""


@pytest.fixture
def spec_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """What the command line makes of a command, which nothing runs."""
    read: list[RunSpec] = []
    monkeypatch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))  # 165 times

    def foreground(runs_dir: Path, spec: RunSpec) -> Path:
        read.append(spec)
        raise Read

    for goal in ("prune", "evaluate"):
        monkeypatch.setattr(f"core.cli.{goal}.foreground", foreground)

    def made(text: str) -> RunSpec:
        words = shlex.split(text)
        assert words[:3] == ["python", "-m", "core"], text
        read.clear()
        try:
            main(words[3:])
        except Read:
            return read[0]
        raise AssertionError(f"{text}\n{capsys.readouterr().err}")

    return made


def test_every_row_has_a_command_that_the_command_line_takes_or_says_why_not(spec_of: Any) -> None:
    texts: dict[str, int] = {}
    for table in published_tables():
        for command in commands(table):
            assert command.text or command.note.startswith("not here: "), table.name
            texts[command.text] = texts.get(command.text, 0) + 1
    assert texts.pop("") == 15, "rows of ChatGLM, LLaMA's own, LoRAShear, Compresso and ML-MM on GPT-2"
    assert len(texts) > 150
    for text in texts:
        spec = spec_of(text)
        check_method(spec)  # the method's own options fit together, too


def test_a_wrong_option_would_be_seen(spec_of: Any) -> None:
    with pytest.raises(AssertionError, match="No such option"):
        spec_of("python -m core prune x --layer 4:30")
    with pytest.raises(AssertionError, match="Unknown preset"):
        spec_of("python -m core prune x --method nuteprune --preset paper-7b-30")


@pytest.mark.parametrize(
    ("name", "index", "wanted"),
    [
        ("llm_pruner_table_01", 7, {"method": "taylor_first", "layers": "4:30", "sparsity": 0.25}),
        ("llm_pruner_table_16", 4, {"method": "taylor_second", "layers": "3:31", "sparsity": 0.6}),
        ("llm_pruner_table_16", 2, {"kinds": ("residual_channel",), "sparsity": 0.5, "layers": None}),
        ("llm_pruner_table_14", 1, {"scope": "raw"}),
        ("llm_pruner_table_07", 3, {"options": {"aggregation": "last"}}),
        ("greedy_output_approximation_table_02", 1, {"options": {"tau": 0.16}, "sparsity": 0.0859375}),
        (
            "adaptive_estimation_fusion_table_01",
            4,
            {"kind_sparsity": {"query_head": 0.1875}, "sparsity": 0.2},
        ),
        ("nuteprune_table_03", 12, {"method": "nuteprune", "sparsity": 0.2, "layers": None}),
        ("nuteprune_table_15", 2, {"sparsity": 0.7}),
    ],
)
def test_rows_ask_for_what_their_paper_did(
    spec_of: Any, name: str, index: int, wanted: dict[str, Any]
) -> None:
    spec = spec_of(row(name, index).text)
    assert {key: getattr(spec.prune, key) for key in wanted} == wanted


def test_the_share_of_all_parameters_is_that_of_table_3() -> None:
    """LLaMA-7B: 32 layers, 4096 wide, 11008 channels, 32,000 tokens; 5.42B and 3.35B are printed."""
    layer = 4 * 4096**2 + 3 * 4096 * 11008
    whole = 32 * layer + 2 * 32_000 * 4096
    for layers, sparsity, printed in ((range(4, 30), 0.25, 5.42e9), (range(3, 31), 0.6, 3.35e9)):
        assert whole - len(layers) * layer * sparsity == pytest.approx(printed, rel=0.004)


def test_rows_are_tuned_as_their_table_says(spec_of: Any) -> None:
    for table in published_tables():
        if "tuned" not in table.columns or table.paper == "nuteprune":
            continue
        for tuned, command in zip(table.column("tuned"), commands(table), strict=True):
            if command.text.startswith("python -m core prune"):
                assert (spec_of(command.text).recover.method == "lora") == (tuned == "yes"), command.text


def test_the_list_in_the_docs_is_true() -> None:
    told = "it is not: run python -m pruneviz.data.commands > docs/published.md"
    assert DOC.read_text(encoding="utf-8") == markdown(), told
