from __future__ import annotations

from core.runs.status import Status
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from pruneviz.data import runs
from pruneviz.figures import states
from tests.pruneviz.samples import STAGES, make_run


def test_a_live_run_names_its_stage_and_its_times(tmp_path):
    path = make_run(
        tmp_path, "a", state="queued", stage="capture", stages=STAGES, progress=0.5, started=100.0, eta_s=38.0
    )
    record = runs.read_run(path)
    record.status.state = "running"
    record.status.titles = {"capture": "Collecting statistics on calibration text"}
    text = states.progress_html(record, now=165.0)
    assert "Collecting statistics on calibration text" in text
    assert "stage 3 of 8" in text and "elapsed 1 min 05 s" in text and "about 38 s left in this stage" in text
    assert f'aria-valuenow="{100 * 2.5 / 8:.0f}"' in text


def test_a_live_sweep_counts_points_and_says_so_once(tmp_path):
    spec = RunSpec(goal="sweep", sweep=SweepSpec(("l2",), (0.1, 0.2)))
    path = make_run(tmp_path, "a", spec, state="queued", stage="score", stages=["load", "score"], started=1.0)
    record = runs.read_run(path)
    record.status.state, record.status.message = "running", "7 of 9 windows"
    text = states.progress_html(record, now=2.0)
    assert 'aria-valuenow="0"' in text and "0 of 2 points · stage 2 of 2" in text and "7 of 9 windows" in text
    record.status.message = "0 of 2 points"
    assert states.progress_html(record, now=2.0).count("0 of 2 points") == 1


def test_the_newest_attempt_is_told_with_its_run(tmp_path):
    error = {"type": "x", "message": "no room.", "fix": "make some"}
    failed = runs.read_run(make_run(tmp_path, "a", state="failed", error=error))
    text = states.attempt_html(failed, "the log")
    assert "no room." in text and "make some" in text and "the log" in text and 'data-run="a"' in text
    text = states.attempt_html(failed, earlier=True)
    assert "failed before there was anything to show: no room. Below" in text and "make some" not in text
    stopped = runs.read_run(make_run(tmp_path, "b", state="stopped"))
    assert "was stopped" in states.attempt_html(stopped) and 'data-run="b"' in states.attempt_html(stopped)
    assert states.attempt_html(runs.read_run(make_run(tmp_path, "c"))) == ""


def test_a_failed_run_says_cause_fix_and_log(tmp_path):
    error = {"type": "StorageError", "message": "disk <full>", "fix": "Free some space."}
    record = runs.read_run(make_run(tmp_path, "a", state="failed", error=error))
    text = states.ended_html(record, log="line one & two")
    assert "disk &lt;full&gt;" in text and "Free some space." in text and "line one &amp; two" in text


def test_a_damaged_run_says_so(tmp_path):
    path = make_run(tmp_path, "a")
    (path / "status.json").write_text("{")
    assert "damaged" in states.ended_html(runs.read_run(path))


def test_a_finished_run_has_no_error(tmp_path):
    assert states.ended_html(runs.read_run(make_run(tmp_path, "a"))) == ""


def test_a_stage_nobody_listed_keeps_its_name():
    assert Status(stage="merge_lora").title == "Merge lora"
    titled = Status(stage="load", stages=["load"], titles={"load": "Loading the model"})
    assert titled.title == "Loading the model" and Status().title == ""
