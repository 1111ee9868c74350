"""Adaptive estimation fusion: coarse and fine estimates of every sample, added."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.criteria.llm_pruner import Aggregation, aggregated, structures
from core.criteria.registry import CRITERIA, GroupView

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "fusion",
    paper="Adaptive estimation fusion, arXiv:2403.10799",
    equation="Eq. 7 and 12, Algorithm 1: sum over samples of |a - a^2/2| + sum |f - f^2/2|",
    needs=("gradient_coarse", "gradient_mix_per_sample"),
    options=Aggregation,
    summary="Adds the estimate for a structure as a whole to the estimates of its single weights, sample by "
    "sample. Structures whose weights pull the same way count more than those whose effects cancel.",
)
def fusion(group: GroupView) -> Tensor:
    """Coarse plus fine importance of each structure, aggregated, (units,): mean over samples.

    Derivation, since the text is garbled in places. Let W be a structure of N weights and E_s the loss
    of sample s. Removing a part of W that is worth delta changes the loss by E(W) - E(W - delta) =
    g'delta - delta'H delta / 2 + O(|delta|^3); Eq. 5, 6 and 12 print the second sign as plus, which is
    the expansion of E(W + delta). H is the Fisher matrix (Eq. 9), for one sample g g'. Then

    - coarse, the structure as a whole (Eq. 5): delta = W, and W'g g'W = (g'W)^2, so the term is
      |a - a^2/2| with a = sum_k g_k w_k;
    - fine, weight by weight (Eq. 6): f_k = g_k w_k, and the term is sum_k |f_k - f_k^2/2|.

    Eq. 7 adds the two, Eq. 12 is that sum written out with T (Eq. 8) and S (Eq. 10), and Algorithm 1
    accumulates it over the samples, a backward each. Nothing else in the text weighs one against the
    other: what adapts is their ratio. By the triangle inequality coarse is at most about fine; it comes
    up to it where the weights of a structure act in one direction, and vanishes where they cancel, for
    every structure and sample separately. The absolute values are those of LLM-Pruner's Eq. 3 and 4, on which
    the paper builds; without them effects of opposite sign would cancel between samples.

    Source: adaptive estimation fusion, Eq. 5 to 12 and Algorithm 1.
    """
    coarse, fine = structures(group, "gradient_coarse"), structures(group, "gradient_mix_per_sample")
    return aggregated(group, [(part, a + b) for (part, a), (_, b) in zip(coarse, fine, strict=True)])
