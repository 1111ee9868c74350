from __future__ import annotations

import json
import re

import pytest

from pruneviz.context import AppContext
from pruneviz.present import answer, logged_in
from tests.pruneviz.samples import MEASURED, make_run


@pytest.fixture
def app(tmp_path):
    path = make_run(tmp_path, "a", metrics=MEASURED)
    sample = {"prompt": "P", "dense": {"text": "D"}, "pruned": {"text": "</style><script>x</script>"}}
    (path / "samples.json").write_text(json.dumps([sample]))
    return AppContext(tmp_path)


def page(response):
    return response.body.decode()


def test_nothing_on_the_page_changes_anything_or_fetches_anything(app):
    response = answer(app, "a")
    text = page(response)
    assert response.status_code == 200
    assert not re.search(r"<(form|input|button|select|textarea|iframe|link|img)\b", text)
    assert not re.search(r"(src|action|formaction)=", text)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "form-action 'none'" in policy
    (nonce,) = re.findall(r"script-src 'nonce-([^']+)'", policy)
    assert re.findall(r"<script[^>]*>", text) == [f'<script nonce="{nonce}">']
    assert page(answer(app, "a")) != text, "a nonce is used once"


def test_no_model_is_loaded_for_it(app):
    answer(app, "a")
    assert app._engine is None


def test_without_runs_it_offers_those_there_are(app):
    response = answer(app, "")
    assert response.status_code == 200 and 'href="?run=a"' in page(response)


def test_a_run_that_is_gone_is_said(app):
    alone, beside = answer(app, "gone"), answer(app, "gone,a")
    assert alone.status_code == 404 and "gone" in page(alone)
    assert beside.status_code == 200 and "no run gone" in page(beside)


def test_an_empty_folder_says_so(tmp_path):
    assert "No run has finished" in page(answer(AppContext(tmp_path / "none"), ""))


class Server:
    """What `logged_in` asks of Gradio's app."""

    auth, cookie_id, tokens = {"ada": "s3cret"}, "c", {"t": "ada"}


@pytest.mark.parametrize(
    ("cookies", "there"),
    [
        ({}, False),
        ({"access-token-c": "wrong"}, False),
        ({"access-token-c": "t"}, True),
        ({"access-token-unsecure-c": "t"}, True),
    ],
)
def test_the_dashboards_login_guards_it_too(cookies, there):
    assert logged_in(Server(), cookies) is there
