"""A page on another port of the same machine, in the same browser: it reads nothing and starts nothing."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser.driver import Dashboard
from tests.pruneviz.test_boundary import question

pytestmark = pytest.mark.browser

#: Everything that a page can send: what came back of it, as far as it can be read.
ATTACK = """async ([url, body]) => {
  const read = [];
  const attempt = async (path, options) => {
    try { read.push(await (await fetch(url + path, {credentials: "include", ...options})).text()); }
    catch (error) { read.push(""); }
  };
  const json = JSON.stringify(body), join = "gradio_api/queue/join";
  const paths = ["", "config", "present", "gradio_api/queue/data?session_hash=s"];
  for (const path of paths) await attempt(path, {});
  for (const mode of ["cors", "no-cors"])
    for (const type of ["application/json", "text/plain"])
      await attempt(join, {method: "POST", mode, body: json, headers: {"Content-Type": type}});
  const form = Object.assign(document.createElement("form"), {
    method: "POST", action: url + join, enctype: "text/plain", target: "frame"});
  const [start, end] = json.split('"session_hash"');
  const [name, value] = [start + '"x', '":1,"session_hash"' + end];
  form.append(Object.assign(document.createElement("input"), {name, value}));
  document.body.append(form);
  form.submit();
  return read;
}"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def elsewhere(tmp_path: Path, dashboard: Dashboard) -> Iterator[str]:
    """The address of a page that shows the dashboard in a frame, beside a frame of its own."""
    frames = f'<iframe name="frame"></iframe><iframe id="shown" src="{dashboard.url}"></iframe>'
    (tmp_path / "index.html").write_text(f"<!doctype html><title>Elsewhere</title>{frames}")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def stranger(browser: Any) -> Iterator[Any]:
    """A page whose refused requests are no fault of the dashboard."""
    opened = browser.new_page()
    yield opened
    opened.close()


def test_a_page_of_another_port(dashboard: Dashboard, stranger: Any, elsewhere: str) -> None:
    before = sorted(dashboard.runs_dir.iterdir())
    answered: list[tuple[str, int]] = []
    stranger.on(
        "response", lambda r: answered.append((r.url, r.status)) if r.url.startswith(dashboard.url) else None
    )
    config = httpx.get(dashboard.url + "config", timeout=60).json()
    stranger.goto(elsewhere)
    read = stranger.evaluate(ATTACK, [dashboard.url, question(config, "s", "start")])
    stranger.wait_for_timeout(2_000)  # a form that got through would have started a run by now
    assert set(read) == {""}
    assert answered and {status for _, status in answered} == {403}
    framed = stranger.query_selector("#shown").content_frame()
    assert framed is None or "gradio" not in framed.content()
    assert sorted(dashboard.runs_dir.iterdir()) == before
