"""LLM-Pruner's rows. Its ratio is one of all parameters, and what it asks for is one of each layer's groups.

Appendix B.1: for 20 % of the parameters 25 % of the groups of layers 5 to 30 go, which are 4:30 counted from
0, for 50 % 60 % of those from layer 4 on. The text says to 30 and leaves the final layer alone, the code has
3:31; only that gives the 3.35B of Table 3 (3:30 gives 3.46B).
"""

from __future__ import annotations

from pruneviz.data.command_pieces import AS_LLM_PRUNER, TUNED, Command, Row, evaluate, none, prune

#: As its tables call it -> the criterion.
METHODS = {
    "l2": "l2", "random": "random", "channel": "taylor_first", "block": "taylor_first",
    "vector": "taylor_vector", "element ²": "taylor_second", "element ¹": "taylor_first",
    "element ¹ - local": "taylor_first", "element ¹ - global": "taylor_first",
}  # fmt: skip
CALIBRATED = "--calibration bookcorpus --samples 10 --length 128"
#: Ratio of all parameters -> what of which layers.
BLOCKS = {"20": "--layers 4:30 --sparsity 0.25", "50": "--layers 3:31 --sparsity 0.6"}
#: Of the 40 layers of 13B it says nothing.
BLOCKS_13B = "--layers 4:38 --sparsity 0.25"
AGGREGATIONS = {"Summation": "sum", "Max": "max", "Production": "prod", "Last-only": "last"}
TARGETS = {"ALL": "all", "- MLP": "attention", "- MHA": "ffn"}


def command(number: int, row: Row) -> Command:
    """What makes this row of Table `number`."""
    special = {5: _chatglm, 6: _dependency, 7: _aggregation, 8: _distilbert, 9: _scratch, 10: _more_data,
               12: _targets, 13: _int8, 15: _steps}  # fmt: skip
    if number in special:
        return special[number](row)
    return _statistics(row) if number == 3 else _zero_shot(row)


def cut(row: Row, ratio: str, method: str, *options: str, model: str = "LLaMA-7B") -> Command:
    """Prune as its Appendix B.1 does, and measure as it does."""
    blocks = BLOCKS_13B if model == "LLaMA-13B" else BLOCKS[ratio]
    tuned = TUNED if row.get("tuned") == "yes" else ""
    made = prune(model, f"--method {method}", blocks, *options, CALIBRATED, tuned, AS_LLM_PRUNER)
    return made.noted("which layers of 40 is not said") if model == "LLaMA-13B" else made


def _zero_shot(row: Row) -> Command:
    model, ratio, name = row["model"], row["sparsity_percent"], row["method"].lower()
    if row["method"] == "LLaMA-7B":
        return none("as LLaMA's paper has it, by a harness of its own")
    if ratio == "0":
        return evaluate(model, AS_LLM_PRUNER)
    if name == "channel":
        return _channel(row, ratio, model)
    scope = "--scope raw" if name.endswith("global") else ""
    made = cut(row, ratio, METHODS[name], scope, model=model)
    return (
        made.noted("it ranks heads and channels by one raw sum; scope global here counts their size")
        if scope
        else made
    )


def _channel(row: Row, ratio: str, model: str) -> Command:
    share = f"--strategy channel --sparsity 0.{ratio[0]}"
    tuned = TUNED if row.get("tuned") == "yes" else ""
    return prune(model, "--method taylor_first", share, CALIBRATED, tuned, AS_LLM_PRUNER)


def _statistics(row: Row) -> Command:
    if row["sparsity_percent"] == "0":
        made = evaluate("LLaMA-7B")
    elif row["strategy"] == "Channel":
        made = _channel({}, row["sparsity_percent"], "LLaMA-7B")
    else:
        made = cut({}, row["sparsity_percent"], "taylor_first")
    return made.noted("latency here is the time to read one prompt, there the whole of WikiText-2")


def _chatglm(row: Row) -> Command:
    return none("ChatGLM-6B's code needs an older transformers; the GLM of transformers is cut like others")


def _dependency(row: Row) -> Command:
    apart = "--without-dependency" if row["method"] == "w/o dependency" else ""
    return cut(row, "20", "taylor_first", apart)


def _aggregation(row: Row) -> Command:
    made = cut({}, "20", "taylor_first", f"--set aggregation={AGGREGATIONS[row['method']]}")
    return made.noted("the ratio is not said; Summation's 66.13 is not Table 1's 19.09")


def _distilbert(row: Row) -> Command:
    if row["method"] == "LLM-Pruner":
        return cut({"tuned": "yes"}, "50", "taylor_second")
    made = prune(
        "LLaMA-7B",
        "--method alternate_layers --scope raw --sparsity 0.5 --calibration none",
        TUNED,
        AS_LLM_PRUNER,
    )
    return made.noted(
        "one layer out of two, but for one head and one channel of each; how it was tuned is not said"
    )


def _scratch(row: Row) -> Command:
    if row["model"] == "StableLM-3B":
        return evaluate("StableLM-3B", AS_LLM_PRUNER).noted("fine-tuned on Alpaca there")
    layers = "--layers 4:30 --sparsity 0.6"
    made = prune("LLaMA-7B", "--method taylor_first", layers, CALIBRATED, TUNED, AS_LLM_PRUNER)
    return made.noted("the layers are not said; these leave its 3.6B")


def _more_data(row: Row) -> Command:
    if not row["tuning_samples"]:
        return evaluate("LLaMA-7B", AS_LLM_PRUNER)
    made = cut({"tuned": "yes"}, "20", "taylor_first")
    return _lamini(made) if row["tuning_samples"] == "2.59M" else made


def _lamini(made: Command) -> Command:
    text = made.text.replace("--recover-data alpaca", "--recover-data lamini")
    return Command(text, made.note).noted("2.59 million rows; a recovery reads the rows that it can use")


def _targets(row: Row) -> Command:
    targets = f"--targets {TARGETS[row['tuned_modules']]}"
    return cut({"tuned": "yes"}, "20", "taylor_second", targets).noted("which criterion is not said")


def _int8(row: Row) -> Command:
    model, small = row["model"], "--int8" if "int8" in row["model"] else ""
    if model in ("LLaMA-7B", "LLM.int8()"):
        made = evaluate("LLaMA-7B", small, AS_LLM_PRUNER)
    else:
        made = _lamini(cut({"tuned": "yes"}, "20", "taylor_first", small))
    return (
        made.noted("tasks are scored in full precision only; LLM.int8() needs bitsandbytes")
        if small
        else made
    )


def _steps(row: Row) -> Command:
    if row["step"] == "0":
        return cut({}, "20", "taylor_first")
    made = cut({"tuned": "yes"}, "20", "taylor_first", "--eval-every 200")
    return made.noted(f"one run, whose perplexities are looked at on the way; this row at step {row['step']}")
