"""Empty, loading and error states, the same on every tab. Pure: records -> HTML."""

from __future__ import annotations

import time

from markupsafe import Markup

from core.errors import InputError, NotPrunableError, StopRequested
from core.results.words import duration
from pruneviz.data.runs import RunRecord, ahead_of, points_done, share_done
from pruneviz.figures.render import render

#: Heads what was asked for and cannot be: nothing is broken.
REFUSED = "This needs a change"


def empty_html(title: str, text: str) -> Markup:
    """Nothing here yet, and what to do next; the button that does it stands below."""
    return _state("empty", title, text)


def error_html(cause: str, fix: str = "", log: str = "", title: str = "Something went wrong") -> Markup:
    """What went wrong, what to do, and the log's last lines."""
    return _state("error", title, cause, fix=fix, log=log)


def loading_html(title: str, elapsed_s: float, detail: str = "") -> Markup:
    """Something is being done right here: what, and for how long already."""
    return _state("loading", title, " · ".join(filter(None, [f"elapsed {duration(elapsed_s)}", detail])))


def _state(
    kind: str, title: str, text: str, share: float | None = None, fix: str = "", log: str = ""
) -> Markup:
    return render("state.html", kind=kind, title=title, text=text, share=share, fix=fix, log=log)


def launched_html(run: str) -> Markup:
    """A run was started: where to follow it."""
    return render("launched.html", run=run)


def notes_html(*texts: object) -> Markup:
    """Sentences that somebody should read, one below the other."""
    return render("notes.html", texts=texts)


def paragraph_html(text: object, kind: str = "quiet", role: str = "") -> Markup:
    """A paragraph: `quiet`, `readout` beside a figure, `intro` of a tab, or `note`."""
    return render("paragraph.html", text=text, kind=kind, role=role)


def failure_html(error: Exception, fix: str = "", log: str = "") -> Markup:
    """The error state of something that was raised; a note if somebody stopped it.

    Our own errors carry their fix in the text.
    """
    if isinstance(error, StopRequested):
        return notes_html(error)
    refused = isinstance(error, InputError | NotPrunableError)
    title = {"title": REFUSED} if refused else {}
    return error_html(str(error) or type(error).__name__, fix, log, **title)


def progress_html(record: RunRecord, now: float | None = None) -> Markup:
    """A live run in place: stage in words, share done, elapsed time and time left."""
    status, now = record.status, time.time() if now is None else now
    head = "Waiting for a free place" if status.state == "queued" else status.title or "Starting"
    worked = status.worked_s(now) if status.started else now - status.created
    facts = [f"elapsed {duration(worked)}"]
    if status.stages and status.stage in status.stages:
        facts.insert(0, f"stage {status.stages.index(status.stage) + 1} of {len(status.stages)}")
    if status.eta_s is not None:
        facts.append(f"about {duration(status.eta_s)} left in this stage")
    if status.state == "queued" and (ahead := ahead_of(record)):
        facts.insert(0, f"behind {', '.join(ahead)}")
    points = points_done(record)
    if points:
        facts.insert(0, f"{points[0]:,} of {points[1]:,} points")
    if status.message and not (points and status.message.endswith(" points")):
        facts.append(status.message)
    return _state("loading", head, " · ".join(facts), share_done(record))


def attempt_html(record: RunRecord, log: str = "", *, earlier: bool = False) -> Markup:
    """How the newest attempt at something ended without it, and which run that was; empty if it did not.

    Args:
        earlier: whether what an earlier run left is shown below.
    """
    if record.state not in ("failed", "crashed", "stopped", "damaged"):
        return Markup()
    cause = "" if record.state == "stopped" else _cause(record).rstrip(".")
    return render(
        "attempt.html", run=record.id, stopped=record.state == "stopped", earlier=earlier, cause=cause,
        ended=ended_html(record, log),
    )  # fmt: skip


def ended_html(record: RunRecord, log: str = "") -> Markup:
    """The error state of a run that failed, crashed or is damaged; empty if it did not."""
    if record.damaged:
        return error_html(f"Run {record.id} is damaged: {record.damaged}", "Clone it or start a new run.")
    if record.state not in ("failed", "crashed"):
        return Markup()
    error = record.status.error or {}
    return error_html(_cause(record), error.get("fix", ""), log or error.get("log", ""))


def _cause(record: RunRecord) -> str:
    if record.damaged:
        return record.damaged
    told = (record.status.error or {}).get("message")
    return told or "The worker ended without a word: killed, or out of memory."
