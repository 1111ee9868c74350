"""`/present?run=ID,ID`: a read-only page for people who only look; nothing on it changes anything."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache

from fastapi import HTTPException, Request
from fastapi.responses import HTMLResponse
from gradio.routes import App
from markupsafe import Markup

from pruneviz import ASSETS
from pruneviz.context import AppContext
from pruneviz.data.contenders import DENSE, finished, line_up, run_title
from pruneviz.data.runs import RunRecord
from pruneviz.figures.compare import entries_of
from pruneviz.figures.render import render
from pruneviz.figures.score_chart import COLOURS
from pruneviz.figures.slides import Slide, slides
from pruneviz.theme import DARK, LIGHT, variables

PATH = "/present"
#: Nothing is fetched, and no script runs but the one that turns the pages, whatever a model wrote.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def add_route(server: App, app: AppContext) -> None:
    """Serve the page beside the dashboard, behind the same login if there is one."""

    def present(request: Request, run: str = "") -> HTMLResponse:
        if not logged_in(server, request.cookies):
            raise HTTPException(401, "Log in on the dashboard first, then open this address again.")
        return answer(app, run)

    server.add_api_route(PATH, present, include_in_schema=False)


def logged_in(server: App, cookies: Mapping[str, str]) -> bool:
    """Whether there is no login, or these cookies are those of one: the test Gradio's own routes make."""
    if server.auth is None:
        return True
    names = (f"access-token-{server.cookie_id}", f"access-token-unsecure-{server.cookie_id}")
    return any(cookies.get(name) in server.tokens for name in names)


def answer(app: AppContext, run: str) -> HTMLResponse:
    """The slides of these runs; what can be chosen, where none was; 404 where none of them is there."""
    wanted = [key for key in run.split(",") if key]
    records = app.records(app.model, *wanted)
    lineup = line_up(records, [DENSE, *wanted], app.model)
    if not any(contender.side != "dense" for contender in lineup.contenders):
        notes = lineup.notes if wanted else ()
        return _response("Present runs", [chooser(records, notes)], 404 if wanted else 200)
    return _response("Pruned and dense", slides(lineup, entries_of(lineup, records)), 200)


def chooser(records: Sequence[RunRecord], notes: Sequence[str]) -> Slide:
    """Links to every run that can be presented."""
    ready = [(record.id, run_title(record)) for record in finished(records)]
    return Slide("Which runs?", render("slides/chooser.html", runs=ready, notes=notes))


def _response(title: str, pages: Sequence[Slide], status: int) -> HTMLResponse:
    nonce = secrets.token_urlsafe(16)
    policy = f"{POLICY}; script-src 'nonce-{nonce}'"
    headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
    style, script = _style(), _script()
    page = render("slides/page.html", title=title, slides=pages, nonce=nonce, style=style, script=script)
    return HTMLResponse(page, status, headers)


@lru_cache
def _style() -> Markup:
    bars = "".join(f".c{n}{{background:var(--pv-{name})}}" for n, name in enumerate(COLOURS))
    sheets = [(ASSETS / name).read_text(encoding="utf-8") for name in ("theme.css", "present.css")]
    return Markup(f":root{{{variables(LIGHT)}}}\n.dark{{{variables(DARK)}}}\n{chr(10).join(sheets)}\n{bars}")


@lru_cache
def _script() -> Markup:
    return Markup((ASSETS / "js" / "present.js").read_text(encoding="utf-8"))
