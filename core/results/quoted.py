"""Which of lm-eval's numbers each paper prints for a benchmark, so that ours is set beside the same one.

No paper says whether its accuracies are normalised by the length of the answer. What they print tells:

- LLM-Pruner's LLaMA-7B has 42.40 on OpenBookQA, 72.99 on HellaSwag and 41.38 on ARC-c, which the harness of
  the time gives as `acc_norm` (its `acc` on OpenBookQA is 28.0), and 67.45 on ARC-e, which it gives as `acc`.
  PIQA's 78.35 is `acc`: so does who asked the authors (LLM-Pruner's issue 25) and measured again.
- Greedy Output Approximation repeats those rows, and Adaptive Estimation Fusion is built on LLM-Pruner's
  code. In the rows that the latter pruned itself ARC-e falls to 53 to 57, where LLM-Pruner's have 61 to 64,
  while all else agrees: there it is probably `acc_norm`. That is not known, so ours is set beside them as
  beside the dense row.
- NutePrune's released harness prints the larger of both wherever there are two (the end of its `main.py`).
  Its dense row by the new harness, 79.16 on PIQA, is `acc_norm`; 75.29 on ARC-e is `acc`.
"""

from __future__ import annotations

from collections.abc import Mapping

#: The larger of `acc` and `acc_norm`.
LARGER = "larger"
#: task -> what LLM-Pruner prints; the workbench quotes the same.
COMMONSENSE = {
    "boolq": "acc",
    "piqa": "acc",
    "hellaswag": "acc_norm",
    "winogrande": "acc",
    "arc_easy": "acc",
    "arc_challenge": "acc_norm",
    "openbookqa": "acc_norm",
}
#: Paper, as the files in `assets/published/` begin -> task -> what it prints.
PRINTED: dict[str, Mapping[str, str]] = {
    "llm_pruner": COMMONSENSE,
    "greedy_output_approximation": COMMONSENSE,
    "adaptive_estimation_fusion": COMMONSENSE,
    "nuteprune": {
        task: metric if task in ("boolq", "winogrande") else LARGER for task, metric in COMMONSENSE.items()
    },
}


def as_printed(paper: str, task: str, metrics: Mapping[str, float]) -> float | None:
    """The number of `metrics`, name -> value, that this paper prints; None if it was not measured."""
    metric = PRINTED.get(paper, COMMONSENSE).get(task, "")
    if metric == LARGER:
        both = [metrics[name] for name in ("acc", "acc_norm") if name in metrics]
        return max(both, default=None)
    return metrics.get(metric)
