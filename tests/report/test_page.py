"""The report: all that a run found, in one file that runs nothing, fetches nothing, shows text as it is."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from core.cli.app import main
from core.files import write_json, write_text
from core.report.charts import bars, lines
from core.report.page import document, write_report
from core.report.run import Run
from core.results.efficiency import EFFICIENCY, Efficiency, Timing
from core.results.tasks import BENCHMARKS
from core.results.widths import WIDTHS
from core.runs.artifacts import EVENTS, METRICS, SAMPLES, SPEC
from core.runs.status import Status, write_status
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from tests.pruneviz.scored import task, write_benchmarks

EVIL = '<img src=x onerror="window.pwned=1">${window.pwned=1}{{value}}</pre><script>window.pwned=1</script>'
MEASURED = {
    "params_before": 1000, "params_after": 800, "macs_before": 900, "macs_after": 700,
    "kv_bytes_per_token_before": 64, "kv_bytes_per_token_after": 48, "ppl_before": 30.0, "ppl_after": 41.5,
    "ppl_pruned": 171.0, "ppl_recovered": 41.5, "latency_ms_before": None, "latency_ms_after": 2.0,
    "tokens_per_second_before": 10.0, "tokens_per_second_after": 12.0, "memory_gib_before": 0.5,
    "memory_gib_after": 0.4, "sparsity": 0.25, "sparsity_total": 0.2, "ppl_text": EVIL, "ppl_window": 256,
    "ppl_tokens": 4096, "calibration_text": "speeches", "seconds": 12.0, "recover_data": "speeches",
    "recover_steps": 50, "recover_best_step": 40,
}  # fmt: skip


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run whose model, name, prompt and answers try to break out."""
    made = tmp_path / "runs" / "20261127-010101-l2-20"
    made.mkdir(parents=True)
    spec = RunSpec(name=EVIL, prune=PruneSpec("l2", 0.2), recover=RecoverSpec("lora"))
    extra = {"versions": {"torch": "2.13.0"}, "evaluation": {"name": EVIL, "sha256": "ab" * 32}}
    write_text(made / SPEC, replace(spec, extra=extra).to_json())
    write_status(made, Status(state="finished", created=1.0, started=1.0, ended=13.0))
    write_json(made / METRICS, MEASURED)
    write_benchmarks(
        made,
        dense=[task("piqa", "1" * 64 + "0" * 36), task("boolq", "1" * 80 + "0" * 20)],
        pruned=[task("piqa", "1" * 50 + "0" * 50), task("boolq", "1" * 40 + "0" * 60)],
        recovered=[task("piqa", "0" * 5 + "1" * 59 + "1" * 3 + "0" * 33), task("boolq", "1" * 50 + "0" * 50)],
    )
    layer = {"query_heads": 3, "kv_heads": 2, "ffn": 24}
    widths = {
        "layers": [{"layer": 0, **layer}],
        "dense": {**layer, "query_heads": 4, "hidden": 32},
        "hidden": 32,
    }
    write_json(made / WIDTHS, widths)
    said = {"text": EVIL, "tokens_per_second": 3.0}
    write_json(made / SAMPLES, [{"prompt": EVIL, "dense": said, "pruned": said, "recovered": said}])
    points = [("recover.held_ppl", step, 170.0 / (1 + step)) for step in (0, 25, 50)]
    rows = [{"name": n, "step": s, "value": v} for n, s, v in points]
    events = [{"time": 1.0, "type": "metric", "stage": "recover", "data": row} for row in rows]
    events.append({"time": 1.0, "type": "message", "stage": "load", "data": {"text": f"Warning: {EVIL}"}})
    (made / EVENTS).write_text("".join(json.dumps(event) + "\n" for event in events))
    return made


class Tags(HTMLParser):
    """Which elements and attributes a browser would make of a page, and the text it would show."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.shown = ""
        self.feed(str(page))  # of `Markup` every part would be escaped again

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.shown += data


def test_what_models_and_people_wrote_stays_text(run_dir: Path) -> None:
    page = document([Run(run_dir)])
    read = Tags(page)
    assert not {"img", "script", "iframe", "link", "object"} & set(read.tags)
    assert not [name for name in read.attributes if name.startswith("on") or name in ("src", "srcset")]
    # Titles, prompt, three answers, warning, the text of the evaluation: all there, letter by letter.
    assert read.shown.count(EVIL) >= 8


def test_nothing_is_fetched(run_dir: Path) -> None:
    page = document([Run(run_dir)])
    assert not re.findall(r"(?:https?:)?//[a-z]", page.replace("//EN", ""))
    assert "default-src 'none'" in page and "@import" not in page and "url(" not in page


def test_everything_a_run_found_is_there(run_dir: Path) -> None:
    shown = " ".join(Tags(document([Run(run_dir)])).shown.split())
    for said in (
        "171.00",
        "41.50",
        "+38.3%",
        "1,000",
        "800",
        "-20.0%",
        "0.6400 ± 0.0482",
        "-0.0200, within the noise",
        "-0.3000",
        "python -m core prune",
    ):
        assert said in shown, said
    assert "best after 40 of 50 steps" in shown and "Query heads" in shown and "2.13.0" in shown
    assert "-0.3000," not in shown, "more than chance"


@pytest.mark.parametrize(("bits", "said"), [(32, "128 at 32 bits"), (None, "128")])
def test_both_counts_of_the_key_value_cache_name_their_precision(
    run_dir: Path, bits: int | None, said: str
) -> None:
    """The plan counts at 16 bits, a measurement as allocated; release 0.1 did not record at how many bits."""
    timing = Timing(1, 8, 2, 3, 10.0, 1.0, 800.0, 5.0, 0.5, 200.0)
    measured = asdict(Efficiency(1000, 10.0, 200.0, 0.5, 0.5, 128, (timing,), bits))
    write_json(run_dir / EFFICIENCY, {"dense": {k: v for k, v in measured.items() if v is not None}})
    page = document([Run(run_dir)])
    assert ">Key-value cache per token, at 16 bits (bytes)</th><td>64</td>" in page
    assert f"<td>{said}</td>" in page and "cache as allocated, bytes/token" in page


def test_charts_draw_what_they_are_given() -> None:
    drawn = lines("loss", {"a": [(0, 2.0), (5, 1.0), (10, 4.0)]})
    (points,) = re.findall(r'points="([^"]*)"', drawn)
    assert points == "60.0,113.3 320.0,160.0 580.0,20.0"
    left = bars("left", {"ffn": [1.0, 0.25]}, "layer")
    assert "layer 1: 25% left" in left and left.count("<rect") == 4


def test_the_command_writes_one_file(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ["--runs-dir", str(run_dir.parent)]
    assert main(["report", run_dir.name, *runs, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"report": str(run_dir / "report.html"), "runs": [run_dir.name]}
    out = run_dir.parent / "both.html"
    assert main(["report", run_dir.name, str(run_dir), *runs, "--out", str(out)]) == 0
    assert "2 runs" in Tags(out.read_text()).shown
    capsys.readouterr()
    assert main(["report", "nothing", *runs]) == 2
    assert "Unknown run 'nothing'" in capsys.readouterr().err


def test_a_run_at_work_or_damaged_shows_what_there_is(run_dir: Path) -> None:
    for name in (METRICS, SAMPLES, WIDTHS, BENCHMARKS):
        (run_dir / name).write_text("{")
    shown = Tags(document([Run(run_dir)])).shown
    assert "How it was made" in shown and "Answers" not in shown


@pytest.mark.browser
def test_a_browser_runs_nothing_of_it(run_dir: Path, tmp_path: Path) -> None:
    from tests.browser.driver import chromium

    file = write_report([run_dir], tmp_path / "report.html")
    asked: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{file}")
        assert page.evaluate("window.pwned") is None and page.evaluate("document.images.length") == 0
        assert EVIL in page.locator("article pre").nth(1).inner_text()
        page.close()
    assert asked == [f"file://{file}"]
