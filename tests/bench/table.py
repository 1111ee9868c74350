"""`python -m tests.bench.table`: every criterion at two sparsities on the demo model, for the README.

One pass over the calibration text serves all criteria and all biases. Least squares and pre-pruning follow
for the criteria that are best without them, since they cost more than a pass for each plan. Rows are printed
as they are found. Every cell says two perplexities: on tokens of the evaluation text, and in brackets on as
many tokens that follow them, by which the best is chosen, so that what is reported of it is not luck.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

from core.capture.statistics import capture
from core.criteria import CRITERIA
from core.criteria.scoring import score
from core.evaluate.perplexity import perplexity
from core.graph.discover import discover
from core.models import load as models
from core.models import texts
from core.models.windows import consecutive_windows, sample_windows
from core.plan.allocation import allocate
from core.recover.reconstruct import reconstructed
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.surgery.masks import masked

MEAN = "input_mean"
KINDS = ("query_head", "ffn_channel")
#: Scope and refit of the second table's columns.
REFITS = (("local", "least_squares"), ("standardised", "least_squares"), ("local", "pre_pruning_refit"))


class Perplexities(NamedTuple):
    """Perplexity on the tokens that are reported, and on those that choose."""

    ppl: float
    choosing: float

    def __str__(self) -> str:
        return f"{_short(self.ppl)} ({_short(self.choosing)})"


def _short(value: float) -> str:
    return f"{value:,.1f}" if value < 1e4 else f"{value:.1e}"


class Bench:
    """The demo model with its texts, scored once."""

    def __init__(self, names: list[str], samples: int, length: int, tokens: int) -> None:
        self.loaded = models.load("demo", device="cpu")
        self.model: Any = self.loaded.model
        self.graph = discover(self.model, name="demo")
        text, window = texts.calibration_text("bundled"), EvalSpec().window_length
        self.windows = sample_windows(self.loaded.tokenizer, text, samples=samples, length=length, seed=0)
        evaluation = consecutive_windows(
            self.loaded.tokenizer, texts.evaluation_text("bundled"), window=window, tokens=2 * tokens
        )
        self.scored, self.choosing = evaluation.chunk(2)
        self.names = names
        needs = {need for name in names for need in CRITERIA[name].needs} | {MEAN}
        statistics = capture(self.model, self.graph, self.windows, needs=needs)
        self.means = statistics.values[MEAN]
        self.scores = score(self.model, self.graph, names, statistics, seed=0, kinds=KINDS)

    def ppl(self, name: str, sparsity: float, scope: str = "local", how: str = "none") -> Perplexities:
        """Perplexities of one way to prune; the model is as it was afterwards.

        Under standardised scope each kind meets the target by itself: scores of channels have so long a
        tail that nearly all heads lie below them in standard deviations, and would go first.
        """
        biased, own = how != "none", dict.fromkeys(KINDS, sparsity) if scope == "standardised" else {}
        plan = allocate(
            self.graph, self.scores[name], sparsity=sparsity, scope=scope, kind_sparsity=own, biased=biased
        )
        if how == "none":
            return self._masked(plan.removed)
        with reconstructed(self.model, self.graph, plan, self.windows, how=how, means=self.means) as refitted:
            return self._masked(refitted.removed)

    def _masked(self, removed: dict[str, tuple[int, ...]]) -> Perplexities:
        with masked(self.model, self.graph, removed):
            return Perplexities(
                *(perplexity(self.model, windows).ppl for windows in (self.scored, self.choosing))
            )


def main(
    names: list[str], samples: int, length: int, tokens: int, fitted: int, sparsities: list[float]
) -> None:
    """Print a table for each sparsity: two columns as they are found, then the best with a third."""
    began = time.perf_counter()
    bench = Bench(names, samples, length, tokens)
    dense = perplexity(bench.model, bench.scored)
    print(
        f"Dense {dense.ppl:.1f}; {samples} windows of {length} tokens calibrate, {dense.tokens:,} tokens in "
        f"windows of {dense.window} are scored, and as many that follow choose.",
        flush=True,
    )
    for sparsity in sparsities:
        print_table(bench, sparsity, fitted)
    print(f"\n{time.perf_counter() - began:.0f} s in all")


def print_table(bench: Bench, sparsity: float, fitted: int) -> None:
    """Every criterion ranked locally, and standardised with biases; the best also refitted."""
    print(f"\n| {sparsity:.0%} | local | standardised per kind + bias |\n|---|---|---|")
    unfitted = {}
    for name in bench.names:
        unfitted[name] = bench.ppl(name, sparsity, "standardised", "bias")
        print(f"| `{name}` | {bench.ppl(name, sparsity)} | {unfitted[name]} |", flush=True)
    print(
        f"\n| {sparsity:.0%} | {' | '.join(f'{scope} + {how}' for scope, how in REFITS)} |\n|---|---|---|---|"
    )
    refitted: dict[str, Perplexities] = {}
    for name in sorted(unfitted, key=lambda name: unfitted[name].choosing)[:fitted]:
        cells = {f"{name}, {scope} + {how}": bench.ppl(name, sparsity, scope, how) for scope, how in REFITS}
        print(f"| `{name}` | {' | '.join(map(str, cells.values()))} |", flush=True)
        refitted |= cells
    if refitted:
        best = min(refitted, key=lambda label: refitted[label].choosing)
        print(f"\nBest by the tokens that choose: {best}: {refitted[best]}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = CRITERIA.names()
    parser.add_argument(
        "--criteria", nargs="+", default=names, choices=names, metavar="NAME", help="default: all"
    )
    parser.add_argument("--samples", type=int, default=DataSpec().samples, help="windows that calibrate")
    parser.add_argument("--length", type=int, default=DataSpec().length, help="tokens in each of them")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of the evaluation text")
    parser.add_argument("--fitted", type=int, default=3, help="criteria that least squares is fitted for")
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.2, 0.4], help="in [0, 1)")
    given = parser.parse_args()
    main(given.criteria, given.samples, given.length, given.tokens, given.fitted, given.sparsities)
