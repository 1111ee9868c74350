"""Adaptive Estimation Fusion's rows: its rate is one of the groups of layers 4 to 29, heads rounded down.

At 20 % 6 of 32 heads go, "18.75 %" (Section 4.3), and 20 % of the channels.
"""

from __future__ import annotations

from pruneviz.data.command_pieces import AS_LLM_PRUNER, TUNED, Command, Row, evaluate, prune

METHODS = {
    "Vector": "taylor_vector",
    "Element1": "taylor_first",
    "Element2": "taylor_second",
    "Ours": "fusion",
}
_HEADS = 32


def command(number: int, row: Row) -> Command:
    """What makes this row of Table `number`."""
    model, percent = row["model"], int(row["sparsity_percent"])
    if not percent:
        return evaluate(model, AS_LLM_PRUNER)
    heads = _HEADS * percent // 100 / _HEADS
    share = f"--layers 4:30 --sparsity {percent / 100:g} --kind-sparsity query_head={heads:g}"
    method, samples = METHODS[row["method"]], row.get("samples") or "50"
    read = f"--calibration bookcorpus --samples {samples} --length 128"
    made = prune(model, f"--method {method}", share, read, TUNED, AS_LLM_PRUNER)
    return made.noted(
        "calibration text and tuning are not said; as LLM-Pruner's code, which it is built on, has them"
    )
