from __future__ import annotations

from core.results.scores import SENSITIVITY
from core.runs.artifacts import GROUPS
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from pruneviz.data import runs
from pruneviz.figures.model import analyses_html, analyses_info
from tests.pruneviz.samples import make_run


def test_the_newest_of_each_kind_is_named_with_its_run(tmp_path):
    make_run(tmp_path, "old", created=1.0, with_graph=True)
    make_run(tmp_path, "new", created=2.0, with_graph=True)
    make_run(tmp_path, "other", RunSpec(model=ModelSpec("someone/else")), created=3.0, with_graph=True)
    found = {a.artifact: a for a in analyses_info(runs.list_runs(tmp_path), "demo")}
    assert found[GROUPS].run == "new" and found[SENSITIVITY].run == ""
    text = analyses_html(list(found.values()))
    assert 'data-run="new"' in text and text.count("not yet") == 3
