"""What the buttons ask for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import ModelError, SpecError
from core.runs import launch as launcher
from core.runs.artifacts import read_spec
from core.spec.explore import ANALYSES, ExploreSpec
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from core.stages.early import check_map
from pruneviz.actions.launch import explore_spec, launch
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


def test_where_weights_rest_elsewhere_analyses_take_no_gradient() -> None:
    app = AppContext(Path("runs"), device_map="auto", max_memory="cpu=2GiB")
    asked = explore_spec(app, "demo", ANALYSES)
    assert (asked.model.device_map, asked.model.max_memory) == ("auto", "cpu=2GiB")
    check_map(asked.settled())
    with pytest.raises(SpecError, match=r"taylor_first, which reads gradients: .* such as --ratio-by wifv"):
        check_map(replace(asked, explore=ExploreSpec(criteria=("l2",))).settled())


def test_what_needs_weights_is_refused_in_words(bare: str) -> None:
    with pytest.raises(ModelError, match="no weights, so only its structure"):
        explore_spec(AppContext(Path("runs")), bare, ("similarity",))


def test_a_hub_id_is_looked_at_without_fetching_its_weights() -> None:
    assert groups_spec(AppContext(Path("runs")), "org/name").explore.config_only


def test_code_of_a_model_runs_only_where_the_dashboard_was_started_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "WORKER", ("true",))
    asks = RunSpec(goal="evaluate", model=ModelSpec("some/model", trust_remote_code=True))
    strict = AppContext(tmp_path / "strict")
    with pytest.raises(ModelError, match=r"run code that comes with some/model.* with --allow-remote-code"):
        launch(strict, asks)
    assert not (tmp_path / "strict").exists(), "nothing was queued"
    assert not strict.model_spec("some/model").trust_remote_code
    trusting = AppContext(tmp_path / "trusting", allow_remote_code=True)
    assert trusting.model_spec("some/model").trust_remote_code
    assert read_spec(launch(trusting, asks)).model.trust_remote_code
