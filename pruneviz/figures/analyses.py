"""Which analyses of a model are there, who made them, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from core.results.scores import SCORES, SENSITIVITY
from core.results.similarity import SIMILARITY
from core.runs.artifacts import GROUPS
from pruneviz import words
from pruneviz.runs import RunRecord, source_key

#: Artifact -> (what it is, the tab that shows it).
ANALYSES = {
    GROUPS: ("Coupled groups", "structure"),
    SIMILARITY: ("Similarity of heads", "heads"),
    SCORES: ("Importance scores", "scores"),
    SENSITIVITY: ("Sensitivity of layers", "sensitivity"),
}


@dataclass(frozen=True)
class Analysis:
    """One kept analysis; `run` is empty where there is none."""

    artifact: str
    title: str
    tab: str
    run: str = ""
    made: float | None = None


def analyses_info(records: Sequence[RunRecord], model: str) -> list[Analysis]:
    """The newest of each kind for this model. `records` are newest first."""
    key, found = source_key(model), []
    for artifact, (title, tab) in ANALYSES.items():
        run = next((r for r in records if source_key(r.model) == key and r.has(artifact)), None)
        made = (run.path / artifact).stat().st_mtime if run else None
        found.append(Analysis(artifact, title, tab, run.id if run else "", made))
    return found


def analyses_html(found: Sequence[Analysis], now: float | None = None) -> str:
    """A table; what is there links to its tab and its run."""
    head = "<tr><th>Analysis</th><th>Made</th><th>By run</th></tr>"
    return (
        '<div class="pv-card"><h3>Kept analyses</h3><div class="pv-scroll"><table class="pv-table">'
        f"<thead>{head}</thead><tbody>{''.join(_row(a, now) for a in found)}</tbody></table></div></div>"
    )


def _row(found: Analysis, now: float | None) -> str:
    if not found.run:
        return f'<tr><td>{found.title}</td><td class="pv-quiet">not yet</td><td></td></tr>'
    return (
        f'<tr><td><a href="?tab={found.tab}" data-go="{found.tab}">{found.title}</a></td>'
        f"<td>{words.age(found.made, now)}</td><td>{run_link(found.run)}</td></tr>"
    )


def run_link(run: str) -> str:
    """A link that opens a run in the Runs tab without loading the page anew."""
    name = escape(run, quote=True)
    return f'<a class="pv-mono" href="?tab=runs&amp;run={name}" data-go="runs" data-run="{name}">{name}</a>'
