"""What is drawn by our own scripts becomes files: PNG, SVG with its colours in it, and numbers as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from pruneviz.components.base import payload
from pruneviz.components.coupled_structure import structure_svg
from pruneviz.components.head_explorer import attention_maps, head_explorer
from pruneviz.components.structure_map import coupled_drawing, structure_map
from pruneviz.figures.heads import HeadsInfo
from pruneviz.figures.structure_map import map_info
from tests.browser.driver import chromium, find_browser
from tests.pruneviz.components.test_head_explorer import RUN, divergence
from tests.pruneviz.samples import graph
from tests.pruneviz.test_hostile import structure

pytestmark = pytest.mark.browser
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """An empty page."""
    if find_browser() is None:
        pytest.skip("no Chromium or Chrome on the PATH")
    with chromium() as browser:
        yield browser.new_page()


def taken(page: Any) -> dict[str, bytes]:
    """What all buttons on the page save, by name."""
    files = {}
    for button in page.locator("[data-save]").all():
        with page.expect_download() as saved:
            button.click()
        files[saved.value.suggested_filename] = Path(saved.value.path()).read_bytes()
    return files


def rows(file: bytes) -> list[list[str]]:
    return list(csv.reader(file.decode().splitlines()))


def is_drawn(files: dict[str, bytes], name: str) -> bool:
    """Whether the drawing is there in both forms, whole and without what only this page knows."""
    drawn = ElementTree.fromstring(files[f"{name}.svg"])
    parts = {part.tag for part in drawn.iter()}
    whole = drawn.tag == f"{SVG}svg" and {f"{SVG}rect", f"{SVG}text"} <= parts
    return whole and b"var(" not in files[f"{name}.svg"] and files[f"{name}.png"].startswith(b"\x89PNG")


def test_similarities_of_heads(page: Any) -> None:
    heads = np.stack([divergence(6, seed) for seed in range(2)])
    info = HeadsInfo((3, 4), heads, None, "text", 10)
    page.evaluate(RUN, [head_explorer().js_on_load, payload(info.to_browser(0.9))])
    page.locator('.pv-thumb[data-layer="4"]').click()
    files = taken(page)
    assert is_drawn(files, "heads-graph-layer-4") and is_drawn(files, "divergence-layer-4")
    table = rows(files["divergence-layer-4.csv"])
    assert table[0] == ["head", *"012345"] and [row[0] for row in table[1:]] == [*"012345"]
    np.testing.assert_allclose(np.array([row[1:] for row in table[1:]], float), heads[1], rtol=1e-6)


def test_attention_of_heads(page: Any) -> None:
    maps = [[[1.0, 0.0], [0.25, 0.75]]]
    told = {"layer": 1, "heads": [2], "tokens": ["=a", ' "<b>'], "maps": maps, "cut": 0}
    page.evaluate(RUN, [attention_maps().js_on_load, payload(told)])
    page.locator("[data-save]").first.wait_for()
    files = taken(page)
    assert is_drawn(files, "attention-layer-1-head-2")
    table = rows(files["attention-layer-1-head-2.csv"])
    assert table == [["token", "'=a", '"<b>'], ["'=a", "1", "0"], ['"<b>', "0.25", "0.75"]]


def test_a_coupled_structure_and_the_map_of_all(page: Any) -> None:
    drawn = structure_svg(structure())
    page.evaluate(RUN, [f"element.innerHTML = props.value;\n{coupled_drawing().js_on_load}", str(drawn)])
    files = taken(page)
    (name,) = {Path(file).stem for file in files}
    assert is_drawn(files, name)
    page.evaluate(RUN, [structure_map().js_on_load, payload(map_info(graph()).to_browser(""))])
    table = rows(taken(page)["structure.csv"])
    assert table[0] == ["kind", "layer", "units", "parameters", "chosen"]
    assert ["ffn_channel", "1", "12"] in [row[:3] for row in table]
