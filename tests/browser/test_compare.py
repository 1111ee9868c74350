"""Compare in a real browser, on a model whose every word is an attack: it must stay text in every view."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from core.runs.artifacts import SPEC
from core.runs.status import Status, write_status
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.stages.worker import execute
from tests.browser.driver import Dashboard
from tests.conftest import llama_config, random_model
from tests.pruneviz.scored import task, write_benchmarks

pytestmark = pytest.mark.browser
LONG = 120_000
IMAGE = "<img/src=x/onerror=window.pwned=1>"
ATTACKS = (IMAGE, "${window.pwned=1}", "{{value}}", "<script>window.pwned=1</script>")
RUN = "attack"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that can write nothing but attacks."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("hostile") / "model"
    words = ["<pad>", "<s>", "</s>", "<unk>", *(f"{ATTACKS[i % 4]}{i}" for i in range(124))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = dict(pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    model = random_model(llama_config())
    model.get_input_embeddings().weight.data[:4] = 0  # never the likeliest: it always writes words
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    (folder.parent / "text.txt").write_text(" ".join(random.Random(0).choices(words[4:], k=600)))
    return folder


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, hostile: Path) -> Iterator[Dashboard]:
    """A dashboard with one real pruning run of that model, and benchmarks with questions like its words."""
    app = Dashboard(tmp_path_factory.mktemp("compare") / "runs", model=str(hostile))
    text = str(hostile.parent / "text.txt")
    spec = RunSpec(
        name=f"{IMAGE} ${{window.pwned=1}}",
        model=ModelSpec(str(hostile), device="cpu"),
        calibration=DataSpec(text, samples=2, length=16),
        prune=PruneSpec(method="l2", sparsity=0.4),
        evaluate=EvalSpec(text, window=16, tokens=64, prompts=(f"{IMAGE}4",), max_new_tokens=5),
    )
    run = app.runs_dir / RUN
    run.mkdir(parents=True)
    (run / SPEC).write_text(spec.to_json())
    write_status(run, Status())
    execute(run)
    write_benchmarks(run, dense=[_attacked("1100")], pruned=[_attacked("0110")])
    app.start()
    yield app
    app.stop()


def _attacked(rights: str) -> Any:
    from dataclasses import replace

    found = task("piqa", rights)
    samples = tuple(
        replace(s, question=f"{s.question} {' '.join(ATTACKS)}", given=IMAGE) for s in found.samples
    )
    return replace(found, samples=samples)


def assert_inert(page: Any) -> None:
    """No attack ran, none became an element."""
    page.wait_for_timeout(500)
    assert page.evaluate(
        "window.pwned === undefined && !document.querySelector('img[src=x], img[src*=onerror]')"
    )


def answer(page: Any, index: int) -> Any:
    return page.locator("#compare-answers .pv-answer-text").nth(index)


def test_attacks_stay_text_kept_and_streamed(page: Any, board: Dashboard) -> None:
    page.goto(board.url + f"?tab=compare&run={RUN}")
    expect(answer(page, 1)).to_contain_text("window.pwned=1")
    expect(page.locator("#compare-flips")).to_contain_text("<script>window.pwned=1</script>")
    expect(page.locator("#compare-table")).to_contain_text(IMAGE)
    expect(page.locator("#compare-scores .modebar")).to_have_count(1)
    assert not page.get_by_label("Share chart").count(), "would upload it"
    assert_inert(page)
    page.locator("#compare-go").click()
    for index in (0, 1):
        expect(page.locator("#compare-answers .pv-speed").nth(index)).to_have_text(
            re.compile(r"^\d+\.\d tokens/s$"), timeout=LONG
        )
        expect(answer(page, index)).to_contain_text("window.pwned=1")
    assert_inert(page)
    page.goto(board.url + f"?tab=runs&run={RUN}")
    expect(page.locator("#run-detail")).to_contain_text(IMAGE)
    assert_inert(page)


def test_a_blind_round_names_nobody_until_somebody_votes(page: Any, board: Dashboard) -> None:
    page.goto(board.url + f"?tab=compare&models=dense,{RUN}")
    expect(answer(page, 1)).to_contain_text("pwned")
    page.locator("#compare-tokens input").fill("4")
    page.locator("#compare-blind input").check()
    page.locator("#compare-go").click()
    cards = page.locator("#compare-answers")
    page.get_by_role("button", name="B is better").wait_for(timeout=LONG)
    for name in ("Dense", "tokens/s", RUN):
        expect(cards).not_to_contain_text(name)
    page.get_by_role("button", name="B is better").click()
    expect(cards).to_contain_text("A was ")
    expect(cards).to_contain_text("B was ")
    expect(cards).to_contain_text("Dense model")
    expect(page.locator(".pv-tally")).to_contain_text("1 of 1 (21 to 100 %)")
    assert sum(own["won"] for own in page.evaluate("JSON.parse(localStorage['pv-votes'])").values()) == 1
    assert_inert(page)


def test_a_prompt_longer_than_the_context_is_refused_in_its_card(page: Any, board: Dashboard) -> None:
    page.goto(board.url + f"?tab=compare&run={RUN}")
    expect(answer(page, 1)).to_contain_text("pwned")
    page.locator("#compare-prompt textarea").fill(f"{IMAGE}4 " * 300)
    page.locator("#compare-go").click()
    for index in (0, 1):
        expect(answer(page, index)).to_contain_text("this model reads 256", timeout=LONG)


def test_the_choice_of_models_is_in_the_address_and_a_deleted_run_is_said(
    page: Any, board: Dashboard
) -> None:
    copy = board.runs_dir / "copy"
    shutil.copytree(board.runs_dir / RUN, copy, dirs_exist_ok=True)
    page.goto(board.url + f"?tab=compare&models=dense,{RUN},copy")
    expect(page.locator("#compare-state")).to_contain_text("take turns")
    expect(answer(page, 2)).to_contain_text("pwned")
    page.locator("#compare-models input").press("Backspace")  # takes the last one away
    expect(page).to_have_url(re.compile(rf"models=dense%2C{RUN}(&|$)"))
    expect(answer(page, 2)).to_have_count(0)
    shutil.rmtree(copy)
    page.goto(board.url + f"?tab=compare&models=dense,{RUN},copy")
    expect(page.locator("#compare-state")).to_contain_text("no run copy")
    expect(answer(page, 1)).to_contain_text("pwned")


def test_a_pruned_model_answers_with_its_weights_in_8_bits(page: Any, board: Dashboard) -> None:
    page.goto(board.url + f"?tab=compare&models=dense,{RUN}:int8")
    expect(page.locator("#compare-table")).to_contain_text(", 8 bits")
    expect(page.locator("#compare-answers")).to_contain_text(", 8 bits")
    page.locator("#compare-go").click()
    expect(page.locator("#compare-answers .pv-speed").nth(1)).to_have_text(
        re.compile("tokens/s"), timeout=LONG
    )
    expect(answer(page, 1)).to_contain_text("pwned")


@pytest.fixture
def twin(board: Dashboard) -> Iterator[None]:
    """The run once more, as `copy`."""
    shutil.copytree(board.runs_dir / RUN, board.runs_dir / "copy")
    yield
    shutil.rmtree(board.runs_dir / "copy")


@pytest.mark.usefixtures("twin")
def test_choosing_a_run_asks_the_server_for_the_open_tab_alone(page: Any, board: Dashboard) -> None:
    page.goto(board.url + f"?tab=runs&run={RUN}")
    expect(page.locator("#run-detail .pv-mono")).to_have_text(RUN)
    asked: list[int] = []

    def note(request: Any) -> None:
        if "queue/join" in request.url:
            asked.append(request.post_data_json["fn_index"])

    page.on("request", note)
    before = -1
    while before != len(asked):  # what the page asks for when it opens comes one after the other
        before = len(asked)
        page.wait_for_timeout(1500)
    asked.clear()
    for run in ("copy", RUN, "copy"):
        page.locator(f"#runs-table a[data-run={run}]").click()
        expect(page.locator("#run-detail .pv-mono")).to_have_text(run)
    assert len(asked) == 3 and len(set(asked)) == 1
    page.get_by_role("tab", name="Compare").click()
    expect(page.locator("#compare-table th small").last).to_have_text("copy")
    page.get_by_role("tab", name="Widths").click()
    expect(page.locator("#widths-run input")).to_have_value(re.compile("copy"))


def test_published_tables_stand_apart_and_are_labelled(page: Any, board: Dashboard) -> None:
    page.goto(board.url + f"?tab=compare&run={RUN}")
    page.get_by_role("button", name="Published results").click()
    shown = page.locator("#compare-published-table")
    expect(shown).to_contain_text("Published, not measured here")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#compare-published-of input").click()
    page.get_by_role("option", name="LLM-Pruner (arXiv 2305.11627), Table 1", exact=True).click()
    expect(shown).to_contain_text("LLaMA-7B*")
    expect(shown).to_contain_text("not here")
    button = shown.locator("tr", has_text="Element ¹").first.get_by_role("button")
    button.click()
    expect(button).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "prune huggyllama/llama-7b --method taylor_first --layers 4:30 --sparsity 0.25 " in copied
    expect(button).to_have_text("Copy command")
    expect(page.locator("#compare-table")).not_to_contain_text("LLM-Pruner")


def test_present_turns_pages_by_keys_and_shares_the_place(page: Any, board: Dashboard) -> None:
    page.goto(board.url + f"present?run={RUN}")
    expect(page.locator("#place")).to_have_text(re.compile(r"^1 / \d+$"))
    expect(page.locator(".slide:visible")).to_have_count(1)
    expect(page.locator(".slide:visible")).to_contain_text(IMAGE)
    page.emulate_media(media="print")
    expect(page.locator(".slide:visible")).to_have_count(page.locator(".slide").count() - 1)
    expect(page.locator(".slide:has(#asking)")).to_be_hidden()
    page.emulate_media(media="screen")
    page.keyboard.press("End")
    expect(page.locator(".slide:visible h2")).to_contain_text("How it was made")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    place = page.locator("#place").inner_text()
    page.reload()
    expect(page.locator("#place")).to_have_text(place)
    page.locator("#on").click()
    expect(page.locator("#place")).not_to_have_text(place)
    assert_inert(page)
    assert page.locator("form").count() == 1, "for a prompt"
    page.get_by_role("button", name="Full screen").click()
    expect(page.get_by_role("button", name="Leave full screen")).to_be_visible()
    assert page.evaluate("document.fullscreenElement === document.documentElement")
    page.get_by_role("button", name="Leave full screen").click()
    expect(page.get_by_role("button", name="Full screen", exact=True)).to_be_visible()


def test_an_audience_asks_its_own_prompt(page: Any, board: Dashboard) -> None:
    page.goto(board.url + f"?tab=compare&models=dense,{RUN}")
    expect(answer(page, 1)).to_contain_text("pwned")
    page.locator("#compare-blind input").check()
    expect(page.locator(".pv-present")).to_have_attribute("href", f"present?run={RUN}&blind=1")
    page.goto(board.url + f"present?run={RUN}&blind=1")
    while not page.locator("#asking").is_visible():
        page.keyboard.press("ArrowRight")
    place = page.locator("#place").inner_text()
    page.locator("#asking-prompt").fill(f"{IMAGE}4 {IMAGE}8")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="B is better").wait_for(timeout=LONG)
    expect(page.locator("#asking-answers")).not_to_contain_text("Dense")
    page.get_by_role("button", name="B is better").click()
    cards = page.locator("#asking-answers")
    expect(cards).to_contain_text("Dense model")
    expect(cards.locator(".pv-answer-text").first).to_contain_text("pwned")
    expect(cards).to_contain_text("1 of 1 (21 to 100 %)")
    expect(page.locator("#asking-asked")).to_have_text(f"“{IMAGE}4 {IMAGE}8”")
    assert page.locator("#place").inner_text() == place
    page.emulate_media(media="print")
    expect(page.locator("#asking-answers .pv-answer")).to_have_count(2)
    expect(page.locator("#asking-asked")).to_be_visible()
    expect(page.locator(".slide button:visible, nav:visible")).to_have_count(0)
    page.emulate_media(media="screen")
    page.locator("#asking-prompt").fill("x " * 2001)
    page.locator("#asking-go").click()
    expect(page.get_by_role("alert")).to_contain_text("at most 4,000 characters, got 4,002")
    page.locator("#asking-prompt").fill("x " * 300)
    page.locator("#asking-go").click()
    expect(cards).to_contain_text("this model reads 256", timeout=LONG)
    assert_inert(page)


def test_present_says_what_is_not_there(browser: Any, board: Dashboard) -> None:
    page = browser.new_page()
    assert page.goto(board.url + "present?run=gone").status == 404
    expect(page.locator("body")).to_contain_text("no run gone")
    page.get_by_role("link", name=IMAGE).click()
    expect(page.locator("#place")).to_contain_text("1 /")
    page.close()
