"""What a running dashboard refuses, and what it still answers."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from pruneviz import boundary
from pruneviz.serve import MOST_SESSIONS
from tests.browser.driver import Dashboard

ELSEWHERE = "http://127.0.0.1:9"
JOIN, DATA = "/gradio_api/queue/join", "/gradio_api/queue/data"


@contextlib.contextmanager
def running(folder: Path, *options: str, **variables: str) -> Iterator[Dashboard]:
    """A dashboard; no traceback may be in what it wrote when it ends."""
    dashboard = Dashboard(folder / "runs", options=options, variables=variables)
    dashboard.start()
    yield dashboard
    dashboard.stop()
    assert "Traceback" not in dashboard.log.read_text()


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    with running(tmp_path_factory.mktemp("open"), "--allow-host", "prune.example.org") as started:
        yield started


@pytest.fixture
def client(dashboard: Dashboard) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=dashboard.url, timeout=60) as client:
        yield client


def question(config: dict[str, Any], session: str, name: str = "show") -> dict[str, Any]:
    """What a page sends to have the first function of this name called."""
    (dependency, *_) = (one for one in config["dependencies"] if one["api_name"] == name)
    values = {one["id"]: one["props"].get("value") for one in config["components"]}
    data = [values[number] for number in dependency["inputs"]]
    call = {"fn_index": dependency["id"], "trigger_id": dependency["targets"][0][0]}
    return {"data": data, **call, "session_hash": session}


def is_short(answer: httpx.Response) -> bool:
    return len(answer.text) < 120 and "Traceback" not in answer.text


@pytest.mark.parametrize("path", ["", "config", "present", "gradio_api/queue/join", "assets/none", "login"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT"])
def test_a_foreign_name_is_refused_everywhere(client: httpx.Client, method: str, path: str) -> None:
    for host in ("evil.test", "127.0.0.1.evil.test", "evil.test:7860", "localhost.evil.test", ""):
        answer = client.request(method, path, headers={"Host": host})
        assert answer.status_code == 400 and is_short(answer)


@pytest.mark.parametrize(
    "said",
    [
        [("host", "127.0.0.1"), ("origin", "http://127.0.0.1"), ("origin", "http://evil.test")],
        [("host", "127.0.0.1"), ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
    ],
)
def test_who_says_two_things_is_not_believed(client: httpx.Client, said: list[tuple[str, str]]) -> None:
    answer = client.get("/config", headers=httpx.Headers(said))
    assert answer.status_code == 403 and is_short(answer)
    names = [(b"host", b"127.0.0.1"), (b"host", b"evil.test")]  # which httpx does not send
    assert boundary._said_twice({"type": "http", "headers": names})


def test_its_names_are_answered_on_any_port(client: httpx.Client) -> None:
    for host in ("localhost", "LOCALHOST:9", "[::1]:7860", "127.0.0.1", "prune.example.org"):
        assert client.get("config", headers={"Host": host}).status_code == 200


FOREIGN = [
    {"Origin": ELSEWHERE},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Origin": "https://evil.test"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_another_page_reads_nothing_and_starts_nothing(
    client: httpx.Client, dashboard: Dashboard, headers: dict[str, str]
) -> None:
    body = question(client.get("config").json(), "foreign", "start")
    for answer in (
        client.post(JOIN, json=body, headers=headers),
        client.post(JOIN, content=json.dumps(body), headers={**headers, "Content-Type": "text/plain"}),
        client.get(DATA, params={"session_hash": "foreign"}, headers=headers),
        client.get("config", headers=headers),
        client.options(JOIN, headers={**headers, "Access-Control-Request-Method": "POST"}),
    ):
        assert answer.status_code == 403 and is_short(answer)
        assert "access-control-allow-origin" not in answer.headers
    assert not list(dashboard.runs_dir.iterdir())


def test_a_form_of_another_page_is_refused_and_a_link_works(client: httpx.Client) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("", headers=headers).status_code == 200
    assert client.post(JOIN, data={"a": "b"}, headers=headers).status_code == 403


@pytest.mark.parametrize("sent", [{}, {"Origin": "own", "Sec-Fetch-Site": "same-origin"}])
def test_the_page_itself_and_programs_are_answered_as_it_streams(
    client: httpx.Client, dashboard: Dashboard, sent: dict[str, str]
) -> None:
    headers = {key: dashboard.url.rstrip("/") if value == "own" else value for key, value in sent.items()}
    body = question(client.get("config").json(), f"own{len(sent)}")
    assert client.post(JOIN, json=body, headers=headers).status_code == 200
    with client.stream("GET", DATA, params={"session_hash": body["session_hash"]}, headers=headers) as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        assert "process_completed" in "".join(events.iter_text())


def test_a_proxy_that_speaks_https_for_it(client: httpx.Client) -> None:
    body = question(client.get("config").json(), "proxied")
    for port in ("", ":8443"):
        host = f"prune.example.org{port}"
        headers = {"Host": host, "Origin": f"https://{host}", "Sec-Fetch-Site": "same-origin"}
        assert client.post(JOIN, json=body, headers=headers).status_code == 200
    headers = {"Host": "prune.example.org", "Origin": "https://prune.example.org:444"}
    assert client.post(JOIN, json=body, headers=headers).status_code == 403


@pytest.mark.parametrize("path", ["", "config", "present", "gradio_api/upload", "none"])
def test_nothing_may_be_framed(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"


def test_it_takes_no_files_and_no_large_bodies(client: httpx.Client) -> None:
    upload = client.post("gradio_api/upload", files={"files": b"x"})
    large = client.post(JOIN, content=b"x" * (boundary.LARGEST_BODY + 1))
    unsized = client.post(JOIN, content=iter([b"{}"]))
    assert [upload.status_code, large.status_code, unsized.status_code] == [404, 413, 411]
    assert is_short(upload) and is_short(large) and is_short(unsized)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (r'"a\ud800b"', "a\ufffdb"),
        (r'"\uDfFf\ud83d\ude00\uD83D"', "\ufffd\U0001f600\ufffd"),
        (r'"\ud83d\\ude00"', "\ufffd\\ude00"),
        (r'"\\ud800 \\\ud800"', "\\ud800 \\\ufffd"),
        (r'"\ud800\ud800\udc00\u00e9"', "\ufffd\U00010000\xe9"),
    ],
)
def test_half_a_character_is_replaced_and_whole_ones_are_not(sent: str, read: str) -> None:
    assert json.loads(posted(sent.encode()).content) == read


@pytest.mark.parametrize("sent", [b'"\xed\xa0\x80"', b'"\xff"', '"a"'.encode("utf-16"), b'"a"\0'])
def test_what_is_no_text_is_refused(sent: bytes) -> None:
    answer = posted(sent)
    assert answer.status_code == 400 and is_short(answer)


def posted(body: bytes) -> httpx.Response:
    """What arrives behind the boundary of a body, sent back."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(await Request(scope, receive).body())(scope, receive, send)

    answer = TestClient(boundary.Unicode(app)).post("/", content=body)
    return httpx.Response(answer.status_code, content=answer.content)


def test_half_a_character_in_a_question_is_answered(client: httpx.Client) -> None:
    """What it runs into first is where an answer is written; `running` looks for a traceback."""
    body = question(client.get("config").json(), "half")
    body["data"] = ["a\ud800b" if isinstance(value, str) else value for value in body["data"]]
    sent = json.dumps(body).encode()
    assert rb"\ud800" in sent
    assert client.post(JOIN, content=sent, headers={"Content-Type": "application/json"}).status_code == 200
    assert "process_completed" in client.get(DATA, params={"session_hash": "half"}).text


def test_opening_pages_does_not_grow_memory_without_end(client: httpx.Client, dashboard: Dashboard) -> None:
    config = client.get("config").json()

    def open_pages(number: int) -> float:
        for _ in range(number):
            body = question(config, f"page{time.perf_counter_ns()}")
            client.post(JOIN, json=body)
            client.get(DATA, params={"session_hash": body["session_hash"]})
        return psutil.Process(dashboard.process.pid).memory_info().rss / 2**20

    full = open_pages(MOST_SESSIONS + 2)
    assert open_pages(40) - full < 20, "a page that was left takes 0.7 MiB until it is forgotten"


def test_wrong_passwords_take_longer_and_longer(tmp_path: Path) -> None:
    with (
        running(tmp_path, "--auth", "ada", PRUNEVIZ_PASSWORD="s3cret") as dashboard,
        httpx.Client(base_url=dashboard.url, timeout=60) as client,
    ):
        assert "s3cret" not in " ".join(psutil.Process(dashboard.process.pid).cmdline())
        assert [client.get(path).status_code for path in ("config", "present")] == [401, 401]
        took = []
        for _ in range(3):
            began = time.perf_counter()
            answer = client.post("login", data={"username": "ada", "password": "guess"})
            took.append(time.perf_counter() - began)
            assert answer.status_code == 400
        assert took[1] >= boundary.FIRST_WAIT_S and took[2] >= 2 * boundary.FIRST_WAIT_S
        assert client.post("login", data={"username": "ada", "password": "s3cret"}).status_code == 200
        assert client.get("config").status_code == 200
