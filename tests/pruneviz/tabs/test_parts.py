from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from pruneviz.tabs.parts import Parts, message, only_changed


@dataclass(frozen=True)
class Inner(Parts):
    text: gr.HTML


@dataclass(frozen=True)
class Outer(Parts):
    button: gr.Button
    inner: Inner


def test_updates_by_name_reach_their_components_and_leave_the_others_alone():
    page = Outer(gr.Button(), Inner(gr.HTML()))
    assert page.all() == [page.button, page.inner.text]
    assert page.filled({"inner": {"text": "a"}}) == {page.inner.text: "a"}
    assert page.filled({"inner": {}, "button": "b"}) == {page.button: "b"}


def test_a_message_is_there_while_it_says_something():
    assert message("<p>").visible and not message("").visible


def test_a_page_that_polls_is_sent_only_what_has_changed():
    a, b, c = gr.HTML(), gr.Button(), gr.HTML()
    first, sent = only_changed({a: "a", b: gr.Button(visible=True), c: "c"}, "")
    assert first[a] == "a" and first[b].visible and first[c] == "c"
    assert only_changed({a: "a", b: gr.Button(visible=True), c: "c"}, sent) == ({}, sent)
    changed, now = only_changed({a: "a", b: gr.Button(visible=False), c: "d"}, sent)
    assert list(changed) == [b, c] and changed[b].visible is False and changed[c] == "d"
    assert list(only_changed({a: "a", b: gr.Button(visible=True), c: "c"}, now)[0]) == [b, c]
