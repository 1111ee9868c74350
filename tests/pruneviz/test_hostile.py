"""Every piece of HTML the page is made of, with hostile strings for whatever a model or a person wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pruneviz
from core.plan.records import Cost
from core.report.charts import TEMPLATES
from core.report.page import document
from core.report.run import Run
from core.results.activations import Activation, Activations
from core.results.render import environment
from core.results.sweep import Point, Sweep
from core.runs.advice import advise
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from pruneviz.actions.trial import measured_html
from pruneviz.components import coupled_structure
from pruneviz.components.taking import Made, Way, taking_html
from pruneviz.context import AppContext
from pruneviz.data import runs
from pruneviz.data.cards import Card
from pruneviz.data.command_pieces import Command
from pruneviz.data.contenders import Contender
from pruneviz.data.labels import on_page
from pruneviz.data.published import PublishedTable
from pruneviz.figures import (
    activations,
    chosen,
    compare,
    heads,
    levels,
    model,
    preview,
    published,
    run_detail,
    runs_table,
    sensitivity,
    states,
    structure_map,
    sweep,
    training,
    widths,
)
from pruneviz.figures.mask_state import KindMask, MaskInfo, mask_html
from pruneviz.figures.structure import Link, Slice, StructureInfo
from pruneviz.present import answer
from pruneviz.tabs import scores
from pruneviz.tabs import sweep as sweep_tab
from pruneviz.tabs.advice import advice_html
from pruneviz.tabs.compare import present_link
from pruneviz.tabs.example import example_html
from tests.pruneviz.samples import MEASURED, graph, make_run
from tests.pruneviz.scored import task, write_benchmarks
from tests.report.test_page import EVIL, Tags

COST = Cost(12, 10, 4)
DENSE = Cost(1000, 900, 64)
#: Elements that no piece of the page has: only hostile text could have made them.
FOREIGN = {"img", "iframe", "link", "object", "script"}


@pytest.fixture
def records(tmp_path: Path) -> list[runs.RunRecord]:
    """Runs with hostile names, notes and answers: finished, live, failed, damaged."""
    spec = RunSpec(name=EVIL, prune=PruneSpec(method="l2", sparsity=0.2), recover=RecoverSpec("lora"))
    spec = replace(
        spec, model=replace(spec.model, source=EVIL), extra={"calibration": {"name": EVIL, "sha256": ""}}
    )
    metrics = {**MEASURED, "ppl_text": EVIL, "ppl_pruned": 80.0, "ppl_recovered": 59.2, "recover_data": EVIL,
               "recover_steps": 5, "recover_best_step": 4, "recover_method": "lora"}  # fmt: skip
    losses = [("metric", "recover", {"name": EVIL, "step": step, "value": 2.0}) for step in (1, 2)]
    warning = ("message", "load", {"text": f"Warning: {EVIL}"})
    path = make_run(tmp_path, "a", spec, metrics=metrics, events=[*losses, warning])
    layer = {"query_heads": 3, "kv_heads": 2, "ffn": 9}
    left = {"layers": [{"layer": 0, **layer}], "dense": {**layer, "hidden": 16}, "hidden": 16}
    (path / "widths.json").write_text(json.dumps(left))
    sides = {"dense": {"text": EVIL}, "pruned": {"text": f"It is {EVIL}"}}
    (path / "samples.json").write_text(json.dumps([{"prompt": EVIL, **sides}]))
    write_benchmarks(path, dense=[task(EVIL, "11")], pruned=[task(EVIL, "00")])
    make_run(tmp_path, "b", spec, state="running", stage="score", message=EVIL, ended=None)
    error = {"message": EVIL, "fix": EVIL, "log": EVIL}
    make_run(tmp_path, "c", spec, state="failed", stage=EVIL, stages=[EVIL, "score"], error=error)
    make_run(tmp_path, "d", spec, state="stopped", stage="score", progress=0.4)
    make_run(tmp_path, "e")
    (tmp_path / "e" / "spec.json").write_text(EVIL)
    return sorted(runs.list_runs(tmp_path), key=lambda record: record.id)


def structure() -> StructureInfo:
    slices = (
        Slice(EVIL, EVIL, "layer1", 0, 8, (8, 4), ((1, 1),), 4, trigger=True),
        Slice("b", "b", "vector", 0, 8, (8,), ((1, 1), (3, 4)), 3, stays=True),
        Slice("c", "c", "layer2", 1, 8, (4, 8), ((1, 1),), 4, times=3),
    )
    links = (Link(0, 2, (EVIL, "mul")), Link(0, 1, ()))
    return StructureInfo(EVIL, "ffn_channel", 0, 1, 8, False, EVIL, slices, links, COST, DENSE, EVIL)


def swept() -> sweep.SweepInfo:
    points = (
        Point(EVIL, 0.2, EVIL, "none", 0, 16, 0.2, 0.1, 900, 800, 31.0, 3.0, "", 0.4, 0.01),
        Point("l2", 0.2, "global", EVIL, 0, 16, 0.2, 0.1, 900, 800, 39.0, 3.0),
        Point("l2", 0.9, "global", "none", 0, 16, error=EVIL),
    )
    return sweep.sweep_info(Sweep(30.0, 1000, 900, EVIL, 256, 8192, EVIL, 6, points, ppl_stderr=0.5))


def scanned() -> sensitivity.SensitivityInfo:
    curves = {(EVIL, 0.2): {0: 31.0, 1: 36.0}, ("ffn", 0.4): {0: 33.0, 1: 39.0}}
    return sensitivity.SensitivityInfo(curves, 30.0, EVIL, 256, 8192, EVIL, baseline_stderr=0.4)


def profiles() -> widths.WidthsInfo:
    parts, dense = {"query_heads": [4, 3], "ffn": [9, 12]}, {"query_heads": 4, "ffn": 12}
    run = widths.Profile(EVIL, dict(parts), dense, 16, 16)
    other = widths.Profile(EVIL, {"query_heads": [4, 3, None], "ffn": [9, 8, 2]}, dense, 14, 16)
    return widths.WidthsInfo(run, [other], True, None, {"ffn": -0.8, "query_heads": 0.1})


def compared() -> compare.CompareInfo:
    numbers = {"ppl": 30.0, "params": 1000, "latency_ms": 4.0, "ppl_text": EVIL, "ppl_window": 256}
    first = compare.Entry(EVIL, EVIL, "r", numbers, {EVIL: task(EVIL, "1100")})
    second = replace(first, run="s", numbers={**numbers, "ppl": 31.0}, scores={EVIL: task(EVIL, "1000")})
    return compare.compare_info([first, second])


def trained(skipped: int = 2) -> training.TrainingInfo:
    curves = {"expected": ([1.0, 2.0], [0.1, 0.2]), "ppl_cut": ([1.0], [40.0])}
    return training.TrainingInfo(curves, [training.Span(1, 2, 0.08)], 4, 2, skipped, 0.5, 1.2, 2)


def pieces(records: list[runs.RunRecord]) -> Iterator[tuple[str, Callable[[], str]]]:
    """Name -> what renders it, each with `EVIL` in every place that takes a text."""
    folder, dense, info = records[0].path.parent, graph(), structure()
    bad, rows = replace(dense, model=EVIL, family=EVIL), [runs_table.row_info(one, 1e9) for one in records]
    yield "report", lambda: document([Run(records[0].path)] * 2)
    yield "slides", lambda: answer(AppContext(folder), "a").body.decode().partition("</head>")[2]
    yield "choosing slides", lambda: answer(AppContext(folder), "").body.decode().partition("</head>")[2]
    yield "empty", lambda: states.empty_html(EVIL, EVIL)
    yield "error", lambda: states.error_html(EVIL, EVIL, EVIL, EVIL)
    yield "loading", lambda: states.loading_html(EVIL, 3.0, EVIL)
    yield "notes", lambda: states.notes_html(EVIL)
    doubtful = advise(RunSpec(), graph(), [], lambda spec: None)[0]
    ways = [replace(doubtful, problem=EVIL, doubts=(EVIL,)), replace(doubtful, after=EVIL, title=EVIL)]
    yield "advice", lambda: advice_html(ways)
    yield "launched", lambda: states.launched_html(EVIL)
    yield "paragraph", lambda: states.paragraph_html(EVIL)
    busy = runs_table.GpuRow(EVIL, EVIL, EVIL, 0.5, EVIL, (EVIL,))
    yield "cards", lambda: runs_table.gpus_html([busy])
    yield "runs", lambda: runs_table.table_html([*rows, replace(rows[0], state=EVIL)], "a")
    for record in records:
        yield f"run {record.id}", lambda record=record: run_detail.detail_html(record, EVIL, [EVIL], 1e9)
    lines = [preview.Line(EVIL, 10, 8, str)]
    planned = preview.PreviewInfo(
        "x", 0.2, 0.1, lines, {"ffn": (9, 3, 9), "kv_heads": (4, 4, 4)}, warnings=[EVIL]
    )
    yield "preview", lambda: preview.preview_html(planned)
    yield "no preview", lambda: preview.preview_html(preview.PreviewInfo("x", warnings=[EVIL]))
    yield "problem", lambda: preview.preview_html(preview.PreviewInfo("x", problem=EVIL))
    yield "compare", lambda: compare.compare_html(compared())
    table = PublishedTable("x", EVIL, 1, ("a_b", EVIL), (("1", EVIL),))
    beside = published.PublishedInfo(table, (Command(EVIL, EVIL),), ((EVIL, EVIL),), (EVIL,))
    yield "published", lambda: published.published_html(beside)
    yield "sweep", lambda: sweep.about_html(swept())
    yield "sweep's table", lambda: sweep.table_html(swept())
    yield "sensitivity", lambda: sensitivity.method_html(scanned())
    yield "sensitivity's table", lambda: sensitivity.table_html(scanned())
    yield "widths", lambda: widths.summary_html(profiles())
    yield "widths' table", lambda: widths.table_html(profiles())
    yield "training", lambda: training.training_html(trained())
    yield "training's cost", lambda: training.cost_html(trained())
    mask = MaskInfo(3, 4, {"query_head": KindMask([0.0, 1.0], [[0.5]], [1], [2])})
    yield "masks", lambda: mask_html(mask)
    yield "parts", lambda: model.parts_html(model.parts_info(dense))
    yield "card", lambda: model.card_html(Card(EVIL, EVIL, EVIL, EVIL, 2, licence=EVIL, stored_dtype=EVIL))
    analyses = [model.Analysis("x", "Scores", "scores", EVIL, 1.0), model.Analysis("y", "Heads", "heads")]
    yield "example", lambda: example_html([records[0]])
    made = Made(EVIL, (EVIL, "idle"), 0.4, EVIL, EVIL)
    yield "ways to run it", lambda: taking_html([Way(EVIL, EVIL, True, EVIL, EVIL, EVIL, made)])
    yield "analyses", lambda: model.analyses_html(analyses, [EVIL], 1e9)
    for focus in (levels.Focus(), levels.Focus("L00.ffn_channel"), levels.Focus("L00.ffn_channel", 3)):
        yield f"crumbs {focus.text}", lambda focus=focus: levels.crumbs_html(bad, focus, 3)
    kinds = [levels.KindRow(EVIL, 2, 4, 8, COST, EVIL), levels.KindRow("ffn_channel", 2, 4, 8, COST, "")]
    yield "kinds", lambda: levels.kinds_html(kinds, DENSE)
    chips = (chosen.Chip(EVIL, EVIL, EVIL, EVIL), chosen.Chip(EVIL, EVIL, "", EVIL))
    units = chosen.ChosenInfo(3, chips, COST, DENSE, 0.1, (EVIL,) * 3, (EVIL,), EVIL)
    yield "chosen", lambda: chosen.chosen_html(units)
    yield "nothing chosen", lambda: chosen.chosen_html(replace(units, count=0))
    found = structure_map.map_info(replace(bad, config_only=True))
    yield "map", lambda: structure_map.about_html(found)
    refused = replace(found, refused=((EVIL, "0, 1", EVIL),))
    yield "refused", lambda: structure_map.refused_html(refused)
    steps = [levels.Step("parameter", EVIL), levels.Step("operation", EVIL, 3)]
    sizes = Activations((Activation(0, "ffn", 1.0, 2.0, 3.0),), 64, EVIL)
    yield "sizes", lambda: activations.about_html(activations.activations_info({EVIL: sizes}))
    yield "path", lambda: levels.path_html(steps, EVIL, EVIL)
    yield "no path", lambda: levels.path_html([], EVIL, EVIL)
    alike = heads.HeadsInfo((0,), np.zeros((1, 2, 2), np.float32), None, EVIL, 1024)
    yield "heads", lambda: heads.source_html(alike)
    yield "drawing", lambda: coupled_structure.structure_svg(info, [EVIL])
    crowded = replace(info, links=info.links * 5)
    yield "crowded drawing", lambda: coupled_structure.structure_svg(crowded)
    yield "cost", lambda: coupled_structure.cost_html(info)
    yield "cost of one", lambda: coupled_structure.cost_html(info, alone=False)
    yield "members", lambda: coupled_structure.members_html(info)
    yield "criterion", lambda: scores.explained_html(EVIL, folder / "a")
    yield "known criterion", lambda: scores.explained_html("l2", folder / "a")
    yield "attempt", lambda: states.attempt_html(replace(records[0], id=EVIL), EVIL)
    yield "earlier attempt", lambda: states.attempt_html(records[3], EVIL, earlier=True)
    yield "sweep's run", lambda: sweep_tab.standing_html(records[3])
    contender = Contender(EVIL, EVIL, EVIL, EVIL, "pruned", replace(records[0], id=EVIL))
    yield "link to slides", lambda: present_link((contender,))
    one = {"ppl": 30.0, "stderr": 0.5, "tokens": 2048, "text": EVIL, "window": 256}
    yield "trial", lambda: measured_html({"dense": one})


def _escapes(page: str) -> list[str]:
    """What a browser would make of hostile text in `page` that is not text."""
    read = Tags(page)
    handlers = [key for key in read.attributes if key.startswith("on") or key in ("src", "srcset")]
    return [*sorted(FOREIGN & set(read.tags)), *handlers, *re.findall(r"<img|&amp;lt;", page)]


def test_every_template_is_among_the_pieces(records: list[runs.RunRecord]) -> None:
    environment.cache_clear()
    for _, render in pieces(records):
        render()
    for folder, filters in ((TEMPLATES, ()), (Path(pruneviz.__file__).parent / "templates", (on_page,))):
        made = environment(folder, True, filters)
        assert made.cache is not None
        assert set(made.list_templates()) == {name for _, name in made.cache.keys()}  # noqa: SIM118


def test_what_models_and_people_wrote_stays_text(records: list[runs.RunRecord]) -> None:
    assert not {name: bad for name, render in pieces(records) if (bad := _escapes(render()))}
