"""`python -m tests.bench.table`: every criterion at two sparsities on the demo model, for the README.

One pass over the calibration text serves all criteria and all biases. Least squares is fitted for the
criteria that are best without it, since it costs several passes for each plan.
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from typing import Any

from core import models, texts
from core.allocation import allocate
from core.capture import capture
from core.criteria import CRITERIA, score
from core.evaluate.perplexity import perplexity
from core.graph.discover import discover
from core.masks import masked
from core.reconstruct import reconstructed
from core.spec import DataSpec, EvalSpec, ModelSpec

MEAN = "input_mean"
SPARSITIES = (0.2, 0.4)


class Bench:
    """The demo model with its texts, scored once."""

    def __init__(self, samples: int, length: int, tokens: int) -> None:
        self.loaded = models.load(ModelSpec("demo", device="cpu"))
        self.model: Any = self.loaded.model
        self.graph = discover(self.model, name="demo")
        text, window = texts.calibration_text("bundled"), EvalSpec().window
        self.windows = texts.sample_windows(
            self.loaded.tokenizer, text, samples=samples, length=length, seed=0
        )
        self.scored = texts.consecutive_windows(
            self.loaded.tokenizer, texts.evaluation_text("bundled"), window=window, tokens=tokens
        )
        self.names = CRITERIA.names()
        needs = {need for name in self.names for need in CRITERIA[name].needs} | {MEAN}
        found = capture(self.model, self.graph, self.windows, needs=needs)
        self.means = found.values[MEAN]
        self.scores = score(
            self.model, self.graph, self.names, found, seed=0, kinds=("query_head", "ffn_channel")
        )

    def ppl(self, name: str, sparsity: float, scope: str = "local", how: str = "none") -> float:
        """Perplexity of one way to prune; the model is as it was afterwards."""
        biased = how != "none"
        plan = allocate(self.graph, self.scores[name], sparsity=sparsity, scope=scope, biased=biased)
        refitted = reconstructed(self.model, self.graph, plan, self.windows, how=how, means=self.means)
        with refitted if biased else nullcontext(), masked(self.model, self.graph, plan.removed):
            return perplexity(self.model, self.scored).ppl


def main(samples: int, length: int, tokens: int, fitted: int) -> None:
    """Print the table: criteria by what they reach with standardised scope and biases, best first."""
    began = time.perf_counter()
    bench = Bench(samples, length, tokens)
    print(f"dense {perplexity(bench.model, bench.scored).ppl:.1f}; {samples} x {length} tokens calibrate\n")
    head = " | ".join(f"{s:.0%} local | standardised + bias | + least squares" for s in SPARSITIES)
    columns = {s: column(bench, s, fitted) for s in SPARSITIES}
    print(f"| criterion | {head} |\n|---|{'---|' * 3 * len(SPARSITIES)}")
    for name in sorted(bench.names, key=lambda name: columns[SPARSITIES[0]][name][1] or 0):
        cells = [cell(value) for s in SPARSITIES for value in columns[s][name]]
        print(f"| `{name}` | {' | '.join(cells)} |")
    print(f"\n{time.perf_counter() - began:.0f} s in all")


def column(bench: Bench, sparsity: float, fitted: int) -> dict[str, list[float | None]]:
    """Criterion -> local, standardised with biases, with least squares (None where it was not fitted)."""
    found: dict[str, list[float | None]] = {}
    for name in bench.names:
        found[name] = [bench.ppl(name, sparsity), bench.ppl(name, sparsity, "standardised", "bias"), None]
        print(f"{sparsity:.0%} {name}: {found[name][0]:.1f}, {found[name][1]:.1f}", flush=True)
    best = sorted(bench.names, key=lambda name: found[name][1] or 0)[:fitted]
    for name in best:
        found[name][2] = bench.ppl(name, sparsity, "standardised", "least_squares")
        print(f"{sparsity:.0%} {name} with least squares: {found[name][2]:.1f}", flush=True)
    return found


def cell(value: float | None) -> str:
    """A perplexity as the table shows it."""
    return "" if value is None else f"{value:,.1f}" if value < 1e4 else f"{value:.1e}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=DataSpec().samples, help="windows that calibrate")
    parser.add_argument("--length", type=int, default=DataSpec().length, help="tokens in each of them")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of the evaluation text")
    parser.add_argument("--fitted", type=int, default=3, help="criteria that least squares is fitted for")
    given = parser.parse_args()
    main(given.samples, given.length, given.tokens, given.fitted)
