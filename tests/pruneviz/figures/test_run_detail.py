from __future__ import annotations

from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from pruneviz.data import runs
from pruneviz.figures.run_detail import detail_html, run_facts, stages_info
from tests.pruneviz.samples import MEASURED, STAGES, make_run


def _record(tmp_path, **options):
    return runs.read_run(make_run(tmp_path, "a", **options))


def test_a_failed_run_shows_where_it_broke(tmp_path):
    stages = stages_info(_record(tmp_path, state="failed", stage="score", progress=0.4))
    assert [stage.state for stage in stages] == ["done"] * 3 + ["broken"] + ["next"] * 4
    stopped = _record(tmp_path / "stopped", state="stopped", stage="score", progress=0.4)
    assert stages_info(stopped)[3].state == "held" and "score 40%" in detail_html(stopped)
    assert stages[3].share == 0.4


def test_a_finished_run_is_done_throughout(tmp_path):
    assert {stage.state for stage in stages_info(_record(tmp_path))} == {"done"}


def test_a_queued_run_waits(tmp_path):
    record = _record(tmp_path, state="queued", stage="", stages=[])
    assert stages_info(record) == [] and "Waiting" in detail_html(record)


def test_facts_say_text_and_window_beside_the_perplexity(tmp_path):
    facts = dict(run_facts(_record(tmp_path, metrics=MEASURED), now=0.0))
    assert facts["Perplexity"] == "26.2 → 59.2 (+126 %)"
    assert facts["Measured on"] == (
        "bundled evaluation text, 32 windows of 256 tokens, 8,160 scored, Workbench's protocol"
    )
    assert facts["Parameters"] == "1,000 → 842 (−15.8 %)"


def test_an_ablation_stands_beside_the_cut_with_its_couplings(tmp_path):
    spec = RunSpec(prune=PruneSpec("taylor_first", without_dependency=True))
    coupled = {
        "ppl_coupled": 39.1,
        "ppl_pruned": 5000.0,
        "ppl_recovered": 59.2,
        "ppl_coupled_recovered": 30.0,
    }
    facts = dict(run_facts(_record(tmp_path, spec=spec, metrics=MEASURED | coupled), now=0.0))
    assert facts["Method"] == "taylor_first, every matrix by itself"
    assert facts["Perplexity"] == "26.2 → 5,000 → 59.2 (+126 %)"
    assert facts["With its couplings"] == "26.2 → 39.1 → 30.0 (+14.5 %)"


def test_notes_and_names_are_escaped(tmp_path):
    text = detail_html(_record(tmp_path), notes=["<script>x</script>"])
    assert "<script>" not in text and len(STAGES) == text.count("<li")
