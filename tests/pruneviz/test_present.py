from __future__ import annotations

import json
import re
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from core.errors import PruneError
from pruneviz import ASSETS
from pruneviz.actions.answers import NO_WEIGHTS, sides_of
from pruneviz.actions.audience import MOST_WAITING, Asked, Floor, unanswerable
from pruneviz.context import AppContext
from pruneviz.data.contenders import DENSE, line_up
from pruneviz.present import add_route, answer, answer_prompt, logged_in
from tests.pruneviz.actions.test_answers import FakeEngine
from tests.pruneviz.samples import MEASURED, make_run

EXAMPLES = ASSETS / "examples"
GONE = "The weights of run a are no longer in its folder, so it cannot answer: run it again."


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


def test_on_paper_it_is_light_whatever_the_theme(app):
    text = page(answer(app, "a"))
    assert "@media screen{.dark{" in text and "\n.dark{" not in text


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


def test_every_choice_leads_back_and_an_address_that_is_not_understood_says_so(app):
    client = TestClient(serving(app))
    strange = client.get("/present?runs=a")
    assert strange.status_code == 400 and "takes run, blind, chat; not runs." in strange.text
    for shown in (strange, client.get("/present?run=nope"), client.get("/present")):
        assert '<a href="./">Back to the workbench</a>' in shown.text
    assert client.get("/present?run=a&blind=1").status_code == 200


def test_the_workbenchs_own_tasks_have_a_name_for_people(tmp_path):
    text = page(answer(AppContext(tmp_path, examples_dir=EXAMPLES), "example-recommended-20"))
    shown = text.split("How it was made")[0]
    assert ">capitals (own)<" in shown and "<h4>capitals</h4>" in shown
    assert not re.search(r">[^<]*bundled_capitals", shown)


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


@pytest.fixture
def stage(app):
    """The page where the run has its weights, and an engine of which each model writes its name."""
    (app.runs_dir / "a" / "model").mkdir()
    app._engine = FakeEngine()
    return TestClient(serving(app))


def serving(app, auth=None):
    server: Any = FastAPI()
    server.auth, server.cookie_id, server.tokens = auth, "c", {}
    add_route(server, app)
    return server


def asked(stage, prompt="Hi", **more):
    reply = stage.post("/present/answers", json={"run": "a", "prompt": prompt, **more})
    return reply, [json.loads(line) for line in reply.text.splitlines()] if reply.status_code == 200 else []


def cards(line):
    return json.loads(line["round"])["cards"]


def test_an_audience_gets_every_models_answer_to_its_prompt(stage):
    assert re.findall(r"<(form|input|textarea|button)\b", stage.get("/present?run=a").text) == [
        "form", "textarea", "button", "button",
    ]  # fmt: skip
    reply, lines = asked(stage)
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert "Starting the engine" in lines[0]["state"] and not lines[-1]["state"]
    dense, pruned = cards(lines[-1])
    assert dense["text"] == "demo:Hi" and pruned["text"].endswith("/a:Hi")
    assert [any(differs for _, differs in card["stretches"]) for card in (dense, pruned)] == [False, True]


def test_a_blind_round_shows_no_text_before_all_are_there(stage):
    assert "data-blind" in stage.get("/present?run=a&blind=1").text
    assert "data-blind" not in stage.get("/present?run=a&chat=1").text
    _, lines = asked(stage, blind=True)
    assert not any(card["text"] for line in lines[:-1] for card in cards(line))
    assert all(card["text"] for card in cards(lines[-1]))
    assert json.loads(lines[-1]["round"])["against"] == "Dense model", "wherever it stands"


@pytest.mark.parametrize("prompt", ["", " \n", "x" * 4001])
def test_what_is_no_prompt_is_refused_in_one_line(stage, prompt):
    reply, _ = asked(stage, prompt)
    assert reply.status_code == 400 and len(reply.text.splitlines()) == 1
    assert stage.post("/present/answers", json={"run": "a"}).status_code == 422


def test_what_goes_wrong_in_a_model_becomes_its_answer(stage, app):
    app._engine.fails["demo"] = PruneError("no room")
    dense, pruned = cards(asked(stage)[1][-1])
    assert (dense["state"], dense["error"], pruned["state"]) == ("failed", "no room", "done")


def test_where_no_pruned_model_can_answer_the_page_says_why(app, monkeypatch):
    stage = TestClient(serving(app))
    assert GONE in stage.get("/present?run=a").text
    assert asked(stage)[0].text == GONE
    (app.runs_dir / "a" / "model").mkdir()
    monkeypatch.setattr("pruneviz.actions.audience.find_spec", lambda name: None)
    assert "torch is not installed" in stage.get("/present?run=a").text


def test_an_example_cannot_be_asked(app):
    records = AppContext(app.runs_dir, examples_dir=EXAMPLES).records("demo")
    lineup = line_up(records, [DENSE, "example-taylor_first-20"], "demo")
    assert unanswerable(sides_of(lineup.contenders)) == NO_WEIGHTS


def test_asking_needs_the_login_too(app):
    assert asked(TestClient(serving(app, auth={"ada": "s3cret"})))[0].status_code == 401


def test_a_prompt_waits_for_the_one_before_it_and_who_leaves_makes_room(app):
    (app.runs_dir / "a" / "model").mkdir()
    app._engine = FakeEngine()
    floor = Floor()
    sides = sides_of(line_up(app.records("demo"), [DENSE, "a"], "demo").contenders)
    first, second = (floor.rounds(app, sides, Asked(run="a", prompt=text)) for text in ("1", "2"))
    next(first)
    assert "Another prompt is being answered first" in next(second).state
    first.close()
    assert [answer.text[-2:] for answer in list(second)[-1].answers] == [":2", ":2"]


def test_only_so_many_prompts_wait(app, monkeypatch):
    monkeypatch.setattr("pruneviz.actions.audience.TICK_S", 0.01)
    (app.runs_dir / "a" / "model").mkdir()
    app._engine = FakeEngine()
    floor, prompt = Floor(), Asked(run="a", prompt="Hi")
    sides = sides_of(line_up(app.records("demo"), [DENSE, "a"], "demo").contenders)
    waiting = [floor.rounds(app, sides, prompt) for _ in range(MOST_WAITING)]
    for rounds in waiting:
        next(rounds)
    assert answer_prompt(app, floor, prompt).status_code == 429
    waiting.pop().close()
    assert answer_prompt(app, floor, prompt).status_code == 200
