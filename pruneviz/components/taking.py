"""Take it with you: every way to run a result, whether it is open, how large it is, and what to type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from core.results import words
from core.runs.artifacts import MODEL
from core.runs.command_line import command_line
from core.ship.routes import ROUTES
from core.spec.export import ExportSpec
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from pruneviz.data import exports
from pruneviz.data.runs import RunRecord, share_done
from pruneviz.figures.render import render
from pruneviz.figures.runs_table import state_words


@dataclass(frozen=True)
class Made:
    """The newest export in a format.

    Attributes:
        badge: its state in a word, and what colours that; share: of it that is done, while it goes on.
        folder: where the files lie, empty until they do; problem: what went wrong.
    """

    run: str
    badge: tuple[str, str]
    share: float | None = None
    folder: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Way:
    """One way to run a result.

    Attributes:
        reason: of its verdict; size: in words, empty where nothing is known; code: what to copy.
    """

    name: str
    title: str
    possible: bool
    reason: str
    size: str = ""
    code: str = ""
    made: Made | None = None


def taking_info(record: RunRecord, records: Sequence[RunRecord]) -> list[Way]:
    """Every way to run what a run left. Raises ArtifactError where its files are damaged."""
    subject, verdicts, sizes = exports.on_paper(record)
    made = exports.exports_of(record, records)
    ways, folder = [], (record.path / MODEL).absolute()
    for name, route in ROUTES.items():
        export = made.get(name)
        files = exports.written(export) if export else None
        code = files.use if files else route.use(subject, folder, ExportSpec())
        if name in ("gguf", "onnx") and not files:
            code = [command_of(record, ExportSpec(to=name))]
        size = words.size(files.bytes) if files else _size(name, record, sizes)
        shown = _made(export, files.folder if files else "") if export else None
        verdict = verdicts[name]
        text = "\n".join(code) if verdict.possible else ""
        ways.append(
            Way(name, route.title, verdict.possible, words.sentence(verdict.reason), size, text, shown)
        )
    return ways


def command_of(record: RunRecord, export: ExportSpec) -> str:
    """The command that exports what a run left."""
    return command_line(RunSpec(goal="export", model=ModelSpec(str(record.path)), export=export))


def _size(name: str, record: RunRecord, sizes: Mapping[str, int]) -> str:
    if name == "hf":
        return words.size(exports.weights_bytes(record))
    if name == "gguf":
        return f"about {words.size(sizes['f16'])}, in Q8_0 {words.size(sizes['q8_0'])}"
    return ""


def _made(export: RunRecord, folder: str) -> Made:
    share = share_done(export) if export.live else None
    problem = (export.status.error or {}).get("message", "") if export.state == "failed" else ""
    gone = folder and not Path(folder).is_dir()
    problem = f"{folder} is no longer there; make it again." if gone else problem
    return Made(export.id, state_words(export.state), share, "" if gone else folder, problem)


def taking_html(ways: Sequence[Way]) -> Markup:
    """A card for every way."""
    return render("taking.html", ways=ways)
