from __future__ import annotations

from pruneviz.figures.task_scores import MOST_WORDS, word_difference


def test_replaced_and_added_words_are_marked_and_nothing_is_lost():
    stretches = word_difference("Paris is the capital of France.", "Lyon is the big capital  of\nFrance.")
    assert [text for text, differs in stretches if differs] == ["Lyon ", "big "]
    assert "".join(text for text, _ in stretches) == "Lyon is the big capital  of\nFrance."


def test_the_same_words_with_other_spaces_are_the_same():
    assert not any(differs for _, differs in word_difference("a b\nc", " a  b c "))


def test_an_empty_answer_has_no_stretches_and_an_empty_reference_marks_all():
    assert word_difference("a", "") == []
    assert word_difference("", "a b") == [("a b", True)]


def test_an_endless_answer_is_left_unmarked():
    text = "x " * (MOST_WORDS + 1)
    assert word_difference("y", text) == [(text, False)]
