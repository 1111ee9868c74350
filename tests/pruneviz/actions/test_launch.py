"""What the buttons ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ModelError
from core.spec.explore import ANALYSES
from pruneviz.actions.launch import explore_spec
from pruneviz.context import AppContext
from pruneviz.tabs.structure_view import groups_spec


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A folder with a config and nothing else."""
    (tmp_path / "config.json").write_text("{}")
    return str(tmp_path)


def test_everything_there_is_to_know_of_a_model_without_weights_is_its_groups(bare: str) -> None:
    app = AppContext(Path("runs"))
    for spec in (explore_spec(app, bare, ANALYSES), groups_spec(app, bare)):
        assert spec.explore.analyses == ("groups",) and spec.explore.config_only
    full = explore_spec(app, "demo", ANALYSES).explore
    assert full.analyses == ANALYSES and not full.config_only


def test_what_needs_weights_is_refused_in_words(bare: str) -> None:
    with pytest.raises(ModelError, match="no weights, so only its structure"):
        explore_spec(AppContext(Path("runs")), bare, ("similarity",))


def test_a_hub_id_is_looked_at_without_fetching_its_weights() -> None:
    assert groups_spec(AppContext(Path("runs")), "org/name").explore.config_only
