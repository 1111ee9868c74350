"""`/present?run=ID,ID`: a page for an audience. It changes nothing; the models answer a prompt of theirs."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from functools import lru_cache, partial

from fastapi import HTTPException, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from gradio.routes import App
from markupsafe import Markup
from starlette.concurrency import iterate_in_threadpool

from pruneviz import ASSETS
from pruneviz.actions.answers import Round, sides_of
from pruneviz.actions.audience import Asked, Floor, refusal, unanswerable
from pruneviz.components.answer_cards import round_payload
from pruneviz.components.base import payload, script, sheet
from pruneviz.context import AppContext
from pruneviz.data.contenders import DENSE, Contender, Lineup, finished, line_up, run_title
from pruneviz.data.runs import RunRecord
from pruneviz.figures.compare import entries_of
from pruneviz.figures.render import render
from pruneviz.figures.score_chart import COLOURS
from pruneviz.figures.slides import Slide, slides
from pruneviz.theme import DARK, LIGHT, variables

PATH = "/present"
#: What an address may name.
KNOWN = ("run", "blind", "chat")
#: Nothing is fetched but answers from here, and no script runs but the page's own, whatever a model wrote.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def add_route(server: App, app: AppContext) -> None:
    """Serve the page beside the dashboard, behind the same login if there is one."""

    floor = Floor()

    def present(request: Request, run: str = "", blind: str = "", chat: str = "") -> HTMLResponse:
        _check_login(server, request)
        strange = [name for name in request.query_params if name not in KNOWN]
        return answer(app, run, blind=blind == "1", chat=chat == "1", strange=strange)

    def answers(request: Request, asked: Asked) -> Response:
        _check_login(server, request)
        return answer_prompt(app, floor, asked)

    server.add_api_route(PATH, present, include_in_schema=False)
    server.add_api_route(f"{PATH}/answers", answers, methods=["POST"], include_in_schema=False)


def _check_login(server: App, request: Request) -> None:
    if not logged_in(server, request.cookies):
        raise HTTPException(401, "Log in on the dashboard first, then open this address again.")


def logged_in(server: App, cookies: Mapping[str, str]) -> bool:
    """Whether there is no login, or these cookies are those of one: the test Gradio's own routes make."""
    if server.auth is None:
        return True
    names = (f"access-token-{server.cookie_id}", f"access-token-unsecure-{server.cookie_id}")
    return any(cookies.get(name) in server.tokens for name in names)


def answer(
    app: AppContext, run: str, *, blind: bool = False, chat: bool = False, strange: Sequence[str] = ()
) -> HTMLResponse:
    """The slides of these runs; what can be chosen, where none was; 404 where none of them is there.

    Args:
        strange: names in the address that mean nothing here; then it is a 400 that says so.
    """
    lineup, records = _presented(app, run)
    if strange:
        said = f"This page takes {', '.join(KNOWN)}; not {', '.join(strange)}. Choose a run."
        return _response("Present runs", [chooser(records, (said,))], 400)
    if not any(contender.side != "dense" for contender in lineup.contenders):
        return _response("Present runs", [chooser(records, lineup.notes if run else ())], 404 if run else 200)
    pages = slides(lineup, entries_of(lineup, records), asking(lineup.contenders, run, blind, chat))
    return _response("Pruned and dense", pages, 200)


def _presented(app: AppContext, run: str) -> tuple[Lineup, list[RunRecord]]:
    """The models that stand side by side for these runs, and all records."""
    wanted = [key for key in run.split(",") if key]
    records = app.records(app.model, *wanted)
    return line_up(records, [DENSE, *wanted], app.model), records


def asking(contenders: Sequence[Contender], run: str, blind: bool, chat: bool) -> Slide:
    """The field for a prompt of the audience's, or why it is not there."""
    why_not = unanswerable(sides_of(contenders))
    body = render(
        "slides/asking.html", why_not=why_not, run=run, blind=blind, chat=chat, count=len(contenders)
    )
    return Slide("A prompt of your own", body)


def answer_prompt(app: AppContext, floor: Floor, asked: Asked) -> Response:
    """Lines of JSON as the answers grow: `state` is what is awaited, `round` the cards. Or a refusal."""
    contenders = _presented(app, asked.run)[0].contenders
    sides = sides_of(contenders)
    if why_not := refusal(asked) or unanswerable(sides):
        return PlainTextResponse(why_not, 400)
    if floor.full:
        return PlainTextResponse("Too many prompts are waiting already; ask again in a minute.", 429)
    cards = partial(round_payload, reference=contenders[0].key)
    lines = floor.rounds(app, sides, asked)
    shown = (payload({"state": now.state, "round": cards(now)}) + "\n" for now in lines)
    return StreamingResponse(_closing(shown, lines), media_type="application/x-ndjson")


async def _closing(shown: Iterator[str], lines: Generator[Round, None, None]) -> AsyncIterator[str]:
    """`shown`; what it comes from ends once nobody reads any more, so that no model goes on writing."""
    try:
        async for line in iterate_in_threadpool(shown):
            yield line
    finally:
        lines.close()


def chooser(records: Sequence[RunRecord], notes: Sequence[str]) -> Slide:
    """Links to every run that can be presented."""
    ready = [(record.id, run_title(record)) for record in finished(records)]
    return Slide("Which runs?", render("slides/chooser.html", runs=ready, notes=notes))


def _response(title: str, pages: Sequence[Slide], status: int) -> HTMLResponse:
    nonce = secrets.token_urlsafe(16)
    policy = f"{POLICY}; script-src 'nonce-{nonce}'"
    headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
    written = {"style": _style(), "script": _script()}
    page = render("slides/page.html", title=title, slides=pages, nonce=nonce, **written)
    return HTMLResponse(page, status, headers)


@lru_cache
def _style() -> Markup:
    bars = "".join(f".c{n}{{background:var(--pv-{name})}}" for n, name in enumerate(COLOURS))
    theme, own = ((ASSETS / name).read_text(encoding="utf-8") for name in ("theme.css", "present.css"))
    colours = f":root{{{variables(LIGHT)}}}\n@media screen{{.dark{{{variables(DARK)}}}}}"  # paper is white
    return Markup("\n".join([colours, theme, sheet(), own, bars]))


@lru_cache
def _script() -> Markup:
    """Turns pages and asks; cards are drawn by Compare's script, given here what Gradio gives it there."""
    files = [ASSETS / "js" / f"{name}.js" for name in ("full_screen", "present", "asking")]
    fills, turns, asks = (file.read_text(encoding="utf-8") for file in files)
    cards = f"function answerCards(element, props, watch) {{\n{script('answer_cards')}\n}}"
    return Markup("\n".join([fills, turns, cards, asks]))
