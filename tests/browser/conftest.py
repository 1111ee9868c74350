"""A dashboard on a tiny model and a browser page that notes everything that goes wrong in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.driver import Dashboard, chromium, find_browser

SLOW_MACHINE_MS = 30_000
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser test gets a second try: two busy cores can starve a page. The summary names each one."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Headless Chromium, one for all tests; skips where there is none."""
    if find_browser() is None:
        pytest.skip("no Chromium or Chrome on the PATH")
    from playwright.sync_api import expect

    expect.set_options(timeout=SLOW_MACHINE_MS)
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def dashboard(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path, silent_hub: dict[str, str]
) -> Iterator[Dashboard]:
    """A dashboard on the tiny Llama with an empty runs folder, and a hub that never answers."""
    runs_dir = tmp_path_factory.mktemp("browser") / "runs"
    app = Dashboard(runs_dir, model=str(tiny_llama_folder), variables=silent_hub)
    app.start()
    yield app
    app.stop()


@pytest.fixture(scope="package")
def profile(browser: Any) -> Iterator[Any]:
    """What the pages of all tests share: its cache, without which opening one takes half as long again."""
    context = browser.new_context(viewport={"width": 1400, "height": 950})
    yield context
    context.close()


@pytest.fixture
def page(profile: Any) -> Iterator[Any]:
    """A fresh page; the test fails if a script broke in it or it asked any other host for something."""
    opened = profile.new_page()
    errors: list[str] = []
    strangers: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("request", lambda r: strangers.append(r.url) if not _is_local(r.url) else None)
    yield opened
    _forget(profile, opened)
    opened.close()
    assert not errors, errors
    assert not strangers, strangers


def _forget(profile: Any, page: Any) -> None:
    """Leave nothing of what a page keeps in the browser, and what it may, to the next."""
    session, origin = profile.new_cdp_session(page), "/".join(page.url.split("/")[:3])
    session.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "local_storage,cookies"})
    profile.clear_permissions()


def _is_local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "about:"))
