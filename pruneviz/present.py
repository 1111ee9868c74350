"""`/present?run=ID,ID`: a read-only page for people who only look; nothing on it changes anything."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from urllib.parse import urlencode

from fastapi import HTTPException, Request
from fastapi.responses import HTMLResponse
from gradio.routes import App

from core.report.markup import Markup, element, join
from pruneviz.context import AppContext
from pruneviz.data import runs
from pruneviz.data.contenders import DENSE, finished, line_up, run_title
from pruneviz.data.runs import RunRecord
from pruneviz.figures.entries import entries_of
from pruneviz.figures.score_chart import COLOURS
from pruneviz.figures.slides import Slide, slides
from pruneviz.theme import ASSETS, DARK, LIGHT, variables

PATH = "/present"
#: Nothing is fetched, and no script runs but the one that turns the pages, whatever a model wrote.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


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
    records, asked = runs.list_runs(app.runs_dir), [key for key in run.split(",") if key]
    lineup = line_up(records, [DENSE, *asked], app.model)
    if not any(one.side != "dense" for one in lineup.contenders):
        notes = lineup.notes if asked else ()
        return _response("Present runs", [chooser(records, notes)], 404 if asked else 200)
    return _response("Pruned and dense", slides(lineup, entries_of(lineup, records)), 200)


def chooser(records: Sequence[RunRecord], notes: Sequence[str]) -> Slide:
    """Links to every run that can be presented."""
    links = [
        element("li", element("a", run_title(one), href=f"?{urlencode({'run': one.id})}"), f" · {one.id}")
        for one in finished(records)
    ]
    said = [element("p", note, class_="pv-note") for note in notes]
    empty = element("p", "No run has finished in this folder yet.", class_="pv-quiet")
    return Slide("Which runs?", join([*said, element("ul", *links) if links else empty]))


def document(title: str, pages: Sequence[Slide], nonce: str) -> str:
    """The whole page; its one script only turns pages, and no other may run."""
    head = [
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title), Markup(f"<style>{_style()}</style>"),
        Markup(f'<script nonce="{nonce}">{_script()}</script>'),
    ]  # fmt: skip
    shown = [
        element("section", element("h2", page.title), page.body, class_="slide", id=str(number))
        for number, page in enumerate(pages, 1)
    ]
    body = element("body", *shown, _turner(len(pages)))
    return f"<!doctype html>\n{element('html', element('head', *head), body, lang='en')}\n"


def _turner(count: int) -> Markup:
    if count < 2:
        return Markup()
    back = element("a", "← Previous", href="#1", id="back")
    on = element("a", "Next →", href="#2", id="on")
    return element("nav", back, element("span", f"1 / {count}", id="place", aria_live="polite"), on)


def _response(title: str, pages: Sequence[Slide], status: int) -> HTMLResponse:
    nonce = secrets.token_urlsafe(16)
    policy = f"{POLICY}; script-src 'nonce-{nonce}'"
    headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
    return HTMLResponse(document(title, pages, nonce), status, headers)


@lru_cache
def _style() -> str:
    bars = "".join(f".c{n}{{background:var(--pv-{name})}}" for n, name in enumerate(COLOURS))
    sheets = [(ASSETS / name).read_text(encoding="utf-8") for name in ("theme.css", "present.css")]
    return f":root{{{variables(LIGHT)}}}\n.dark{{{variables(DARK)}}}\n{chr(10).join(sheets)}\n{bars}"


@lru_cache
def _script() -> str:
    return (ASSETS / "js" / "present.js").read_text(encoding="utf-8")
