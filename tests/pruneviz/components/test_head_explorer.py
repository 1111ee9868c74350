"""The browser's arithmetic is the engine's arithmetic."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import networkx as nx
import numpy as np
import pytest
from numpy.typing import NDArray

from core.results.similarity import algorithm_1, pairs_below
from pruneviz.components.base import payload, script
from pruneviz.components.head_explorer import head_explorer
from pruneviz.figures.heads import HeadsInfo
from tests.browser.driver import chromium, find_browser

pytestmark = pytest.mark.browser
LOOK = """([text, heads, tau]) => {
  const d = decode(text), pairs = pairsBelow(d, heads, tau);
  const gone = [...algorithm1(d, heads, tau).keys()];
  return {pairs, gone, community: communities(pairs, heads), at: places(d, heads)};
}"""


#: The component as Gradio would run it: `value` is what `payload` sends.
RUN = """([code, value]) => {
  document.body.innerHTML = '<div id="heads-explorer" style="width:1300px"></div>';
  const element = document.getElementById("heads-explorer");
  new Function("element", "props", "trigger", "watch", code)(element, {value}, () => {}, () => {});
  return new Promise((done) => setTimeout(() => requestAnimationFrame(() => setTimeout(done)), 100));
}"""
#: Of every thumbnail whether it was drawn: nobody has set the size of a canvas that was not.
DRAWN = '() => [...document.querySelectorAll(".pv-thumb canvas")].map((c) => c.style.width !== "")'


@pytest.fixture(scope="module")
def blank() -> Iterator[Any]:
    """An empty page that knows the arithmetic and nothing else."""
    if find_browser() is None:
        pytest.skip("no Chromium or Chrome on the PATH")
    with chromium() as browser:
        page = browser.new_page()
        page.add_script_tag(content=script("head_maths"))
        yield page


def divergence(heads: int, seed: int) -> NDArray[np.float32]:
    """Symmetric, zero on the diagonal, float32."""
    raw = np.triu(np.random.default_rng(seed).uniform(0, 0.83, (heads, heads)), 1)
    return (raw + raw.T).astype(np.float32)


def look(page: Any, d: NDArray[np.float32], tau: float) -> Any:
    return page.evaluate(LOOK, [base64.b64encode(d.tobytes()).decode(), len(d), tau])


@pytest.mark.parametrize("heads", [1, 2, 9, 32])
@pytest.mark.parametrize("tau", [0.0, 0.05, 0.2, 0.5, 1.0])
def test_pairs_candidates_and_communities_agree(blank: Any, heads: int, tau: float) -> None:
    d = divergence(heads, seed=heads)
    found = look(blank, d, tau)
    assert len(found["pairs"]) == pairs_below(d, tau)
    assert found["gone"] == algorithm_1(d, tau)
    graph = nx.Graph(found["pairs"])
    wanted = {frozenset(part) for part in nx.connected_components(graph)}
    community = np.array(found["community"])
    numbers = set(community.tolist()) - {-1}
    assert {frozenset(np.flatnonzero(community == c).tolist()) for c in numbers} == wanted


def test_a_divergence_that_equals_tau_is_not_below_it(blank: Any) -> None:
    d = np.array([[0, 0.2], [0.2, 0]], np.float32)  # 0.2 in single precision lies above 0.2 in double
    assert look(blank, d, 0.2)["gone"] == algorithm_1(d, 0.2) == []
    assert look(blank, d, 0.205)["gone"] == algorithm_1(d, 0.205) == [0]


def test_heads_that_differ_less_are_placed_nearer_and_none_hides_another(blank: Any) -> None:
    d = np.full((6, 6), 0.7, np.float32)
    d[:3, :3] = d[3:, 3:] = 0.15
    np.fill_diagonal(d, 0)
    at = np.array(look(blank, d, 0.2)["at"])
    assert at.min() >= -1e-6 and at.max() <= 1 + 1e-6
    apart = np.linalg.norm(at[:, None] - at[None], axis=-1)
    assert apart[0, 1] < apart[0, 4] and apart[~np.eye(6, dtype=bool)].min() > 0.05


def test_heads_that_say_the_same_are_still_seen_apart(blank: Any) -> None:
    at = np.array(look(blank, np.zeros((12, 12), np.float32), 0.2)["at"])
    apart = np.linalg.norm(at[:, None] - at[None], axis=-1)
    assert apart[~np.eye(12, dtype=bool)].min() > 0.1


def test_numbers_that_are_missing_are_no_pairs(blank: Any) -> None:
    d = np.full((3, 3), np.nan, np.float32)
    found = look(blank, d, 0.9)
    assert found["pairs"] == [] and np.isfinite(np.array(found["at"])).all()


def test_of_80_layers_only_the_thumbnails_in_sight_are_drawn(blank: Any) -> None:
    layers = np.stack([divergence(64, seed) for seed in range(80)])
    info = HeadsInfo(tuple(range(80)), layers, None, "text", 10)
    page = blank.context.browser.new_page()
    page.add_style_tag(content=".pv-thumbs { height: 300px; overflow-y: auto } .pv-thumb { display: block }")
    page.evaluate(RUN, [head_explorer().js_on_load, payload(info.to_browser(0.9))])
    drawn = page.evaluate(DRAWN)
    assert len(drawn) == 80 and drawn[0] and not drawn[79] and sum(drawn) < 20
    page.locator(".pv-thumb").last.scroll_into_view_if_needed()
    page.wait_for_function(f"() => ({DRAWN})()[79]")
    labels = page.locator(".pv-thumb").evaluate_all("(all) => all.map((each) => each.ariaLabel)")
    assert labels[79].startswith(f"L79 {pairs_below(layers[79], 0.9):,} pairs below tau")
    assert labels[79].endswith(f"{len(algorithm_1(layers[79], 0.9))} to remove")
    page.close()
