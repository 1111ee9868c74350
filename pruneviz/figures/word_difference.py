"""Which words of an answer are not in the reference answer."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

#: A stretch of text, and whether it differs from the reference.
Stretch = tuple[str, bool]
#: Answers longer than this many words are shown unmarked: matching takes the product of both lengths.
MOST_WORDS = 3000


def word_difference(reference: str, text: str) -> list[Stretch]:
    """`text` in stretches, in order; their concatenation is `text`, spaces included.

    A word is marked where the longest common run of words leaves it out: it was replaced or added.
    """
    there, here = _words(reference), _words(text)
    if not here or len(there) > MOST_WORDS or len(here) > MOST_WORDS:
        return [(text, False)] if text else []
    matcher = SequenceMatcher(None, [w.strip() for w in there], [w.strip() for w in here], autojunk=False)
    stretches = [
        ("".join(here[start:end]), kind != "equal") for kind, _, _, start, end in matcher.get_opcodes()
    ]
    return [stretch for stretch in stretches if stretch[0]]


def _words(text: str) -> list[str]:
    """Words with the space around them."""
    return re.findall(r"\s*\S+\s*", text)
