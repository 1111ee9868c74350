from __future__ import annotations

import gradio as gr

from pruneviz.tabs.parts import only_changed

SKIP = gr.skip()


def test_a_page_that_polls_is_sent_only_what_has_changed():
    first = only_changed(["a", gr.Button(visible=True), "c"], "")
    assert first[0] == "a" and first[1].visible and first[2] == "c"
    again = only_changed(["a", gr.Button(visible=True), "c"], first[-1])
    assert again == [SKIP, SKIP, SKIP, first[-1]]
    changed = only_changed(["a", gr.Button(visible=False), "d"], again[-1])
    assert changed[0] == SKIP and changed[1].visible is False and changed[2] == "d"
    assert only_changed(["a", "b"], first[-1])[:2] == ["a", "b"], "a page of an older dashboard"
