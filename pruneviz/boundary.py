"""What is refused before Gradio sees it: requests from other pages, under other names, too large or no text.

A browser lets any page send requests to any address. So the name in `Host` must be one that the page answers
to (else a foreign name that is pointed at this machine could read everything), and what a browser says of
where a request comes from must be this page. Programs that are no browser say nothing, and may ask.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 8 * 2**20
#: Parts of Gradio that nothing here uses: they take or leave files, or ask other servers.
CLOSED = tuple(
    f"/gradio_api/{name}" for name in ("upload", "process_recording", "deep_link", "proxy=", "vibe", "dev/")
)
HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
}
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 15.0
#: Failed logins are remembered for this long, of this many addresses.
MEMORY_S, MOST_ADDRESSES = 900.0, 1024


def middleware(names: Sequence[str]) -> list[Middleware]:
    """All of it, the outermost first. The last one allows no origin, in the place of Gradio's own."""
    return [
        Middleware(Unframed),
        Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False),
        Middleware(SameOrigin),
        Middleware(Bounded),
        Middleware(Unicode),
        Middleware(SlowLogins),
        Middleware(CORSMiddleware),
    ]


class Unframed:
    """Has every answer say that no other page may show or embed it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, marked)


class SameOrigin:
    """Refuses what another page sent: another host, or another port of this one. Links to the page work."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and (_said_twice(scope) or _foreign(scope)):
            text = "Refused: another page sent this. If a proxy stands between, it must hand on Host.\n"
            await PlainTextResponse(text, 403)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _said_twice(scope: Scope) -> bool:
    """Whether a request has two answers to where it goes or comes from; no browser sends that."""
    headers = Headers(scope=scope)
    return any(len(headers.getlist(name)) > 1 for name in ("host", "origin", "sec-fetch-site"))


def _foreign(scope: Scope) -> bool:
    """Whether a browser says that a page of another origin made it send this; `null` is another origin."""
    headers = Headers(scope=scope)
    own = [f"{scheme}://{headers.get('host', '')}".lower() for scheme in ("http", "https")]
    if headers.get("origin", own[0]).lower() not in own:  # a proxy may speak https for us
        return True
    opened = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    if opened and scope.get("method") in ("GET", "HEAD"):
        return False
    return headers.get("sec-fetch-site", "none") not in ("same-origin", "none")


class LoggedIn:
    """Refuses who has not logged in; for what Gradio mounts beside the routes on which it asks that itself.

    Args:
        app: what is behind.
        allowed: whether a request with these cookies is of somebody who has logged in.
    """

    def __init__(self, app: ASGIApp, allowed: Callable[[Mapping[str, str]], bool]) -> None:
        self.app, self.allowed = app, allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self.allowed(HTTPConnection(scope).cookies):
            text = "Refused: log in first (POST /login), and send the cookie you get.\n"
            await PlainTextResponse(text, 401)(scope, receive, send)
            return
        await self.app(scope, receive, send)


class Bounded:
    """Refuses uploads, and bodies that are too large or do not say how large they are."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refused := _unbounded(scope)) is not None:
            await refused(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _unbounded(scope: Scope) -> PlainTextResponse | None:
    headers = Headers(scope=scope)
    if scope["path"].startswith(CLOSED):
        return PlainTextResponse("Not found: the workbench takes no files.\n", 404)
    if "transfer-encoding" in headers:
        return PlainTextResponse("Refused: say how long the body is (Content-Length).\n", 411)
    if int(headers.get("content-length", 0)) > LARGEST_BODY:
        return PlainTextResponse(f"Refused: a request holds at most {LARGEST_BODY >> 20} MiB.\n", 413)
    return None


class Unicode:
    """Has every body be Unicode. JSON can name half a character, which then is in no answer and no file.

    Such a half is replaced, as everywhere on the way here; the bytes of one, or UTF-16, are refused.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            return  # gone before all of it was sent
        if b"\0" in body or not _is_utf8(body):
            await PlainTextResponse("Refused: what is sent is text in UTF-8.\n", 400)(scope, receive, send)
            return
        whole = _ESCAPES.sub(lambda escape: rb"\ufffd" if escape["half"] else escape[0], body)
        messages: Iterator[Message] = iter([{"type": "http.request", "body": whole, "more_body": False}])

        async def again() -> Message:
            return next(messages, None) or await receive()

        await self.app(scope, again, send)


#: What begins with a backslash in JSON: both halves of a character, half of one, anything else.
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)


async def _body(receive: Receive) -> bytes | None:
    """All that is sent, which `Bounded` has bounded; None if the sender is gone."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


@dataclass
class _Tries:
    """Failed logins from one address, when the last one was, and whether one is being answered."""

    failed: int = 0
    last: float = 0.0
    busy: bool = False


class SlowLogins:
    """Lets an address wait longer after every failed login, and takes one login at a time from it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.tries: OrderedDict[str, _Tries] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (scope["type"], scope.get("method")) != ("http", "POST") or scope["path"].rstrip("/") != "/login":
            await self.app(scope, receive, send)
            return
        tries = self._of(_address(scope))
        if tries.busy:
            text = "Refused: another login from your address is being checked; try again in a while.\n"
            headers = {"Retry-After": str(round(_wait_s(tries.failed)) + 1)}
            await PlainTextResponse(text, 429, headers)(scope, receive, send)
            return
        with _at_work(tries):
            await asyncio.sleep(_wait_s(tries.failed))
            await self.app(scope, receive, _counting(tries, send))

    def _of(self, address: str) -> _Tries:
        tries = self.tries.pop(address, _Tries())
        if not tries.busy and time.monotonic() - tries.last > MEMORY_S:
            tries = _Tries()
        self.tries[address] = tries
        if len(self.tries) > MOST_ADDRESSES:
            self.tries.popitem(last=False)
        return tries


@contextmanager
def _at_work(tries: _Tries) -> Iterator[None]:
    tries.busy = True
    try:
        yield
    finally:
        tries.busy = False


def _counting(tries: _Tries, send: Send) -> Send:
    """`send`, which notes how the login ended; a failed one is answered with 400."""

    async def counted(message: Message) -> None:
        if message["type"] == "http.response.start":
            tries.failed = 0 if message["status"] == 200 else tries.failed + 1
            tries.last = time.monotonic()
        await send(message)

    return counted


def _wait_s(failed: int) -> float:
    return min(FIRST_WAIT_S * 2 ** (failed - 1), LONGEST_WAIT_S) if failed else 0.0


def _address(scope: Scope) -> str:
    """Whom to slow down: an IPv4 address, or the /64 of an IPv6 one, which one person has all of."""
    host = scope["client"][0] if scope.get("client") else ""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((ip, 64), strict=False)) if ip.version == 6 else host
