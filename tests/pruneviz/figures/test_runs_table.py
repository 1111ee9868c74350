from __future__ import annotations

from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from pruneviz.data import runs
from pruneviz.figures.run_detail import run_facts
from pruneviz.figures.runs_table import STATES, row_info, table_html
from tests.pruneviz.samples import MEASURED, make_run


def _row(tmp_path, **options):
    return row_info(runs.read_run(make_run(tmp_path, "a", **options)))


def test_a_measured_run_shows_what_was_measured(tmp_path):
    row = _row(tmp_path, metrics=MEASURED)
    assert row.sparsity == "20.0 % of block parameters, 15.8 % of all"
    assert [of.change for of in row.perplexities] == ["26.2 → 59.2"]
    assert row.took == "1 min 00 s" and row.share is None


def test_an_unmeasured_run_shows_what_was_asked_for(tmp_path):
    row = _row(tmp_path, spec=RunSpec(prune=PruneSpec(sparsity=0.3)), state="failed")
    assert row.sparsity == "30.0 % of block parameters asked for"
    assert row.perplexities == () and "<td>–</td>" in table_html([row])


def test_an_exploring_run_has_no_method(tmp_path):
    row = _row(tmp_path, spec=RunSpec(goal="explore"))
    assert (row.title, row.method, row.sparsity) == ("Analysis", "–", "–")


def test_a_recovery_says_what_was_cut_before_and_what_trained_it(tmp_path):
    spec = RunSpec(goal="recover", model=ModelSpec("/runs/20260101-l2"), recover=RecoverSpec("lora"))
    run = make_run(tmp_path, "a", spec, metrics={**MEASURED, "ppl_pruned": 174.2})
    row = row_info(runs.read_run(run))
    assert (row.method, row.sparsity) == ("LoRA", "20.0 % of block parameters, 15.8 % of all")
    assert [of.change for of in row.perplexities] == ["26.2 → 174.2 → 59.2"]
    assert 'title="/runs/20260101-l2">20260101-l2<' in table_html([row])
    facts = dict(run_facts(runs.read_run(run), now=0.0))
    assert "174" in facts["Perplexity"] and facts["Parameters"] and "Method" not in facts


def test_a_damaged_run_is_in_the_table(tmp_path):
    path = make_run(tmp_path, "a")
    (path / "spec.json").write_text("{")
    row = row_info(runs.read_run(path))
    assert (row.state, row.title) == ("damaged", "Unreadable")


def test_every_state_has_a_word():
    from core.runs.status import STATES as ALL

    assert set(ALL) | {"damaged"} <= STATES.keys()


def test_the_table_escapes_and_marks_the_chosen_run(tmp_path):
    spec = RunSpec(name="<b>bold</b>", model=ModelSpec('x"onclick="alert(1)'))
    rows = [_row(tmp_path, spec=spec)]
    text = table_html(rows, "a")
    assert "<b>bold" not in text and '"onclick="' not in text
    assert 'aria-current="true"' in text and 'aria-current="true"' not in table_html(rows, "b")
