"""NutePrune's rows: its ratio is a share of the block parameters of all layers, hidden channels included."""

from __future__ import annotations

from pruneviz.data import commands_llm_pruner
from pruneviz.data.command_pieces import AS_NUTEPRUNE, TUNED, Command, Row, evaluate, none, prune

#: Methods of others that are not implemented here, and why.
OTHERS = {
    "LoRAShear": "its graph search and dynamic fine-tuning were not published",
    "Compresso": "it adds a prompt of its own to training and answers",
}
RULES = {
    "MaP": "rule=magnitude", "MvP": "rule=movement",
    "LoRAPrune": "rule=lora_gradient --set lora_targets=all",  # it ranks what has LoRA
}  # fmt: skip
SWITCH = {"yes": "true", "no": "false"}
#: Table 14 prints 20 % a second time over rows whose averages are those of Table 3 at 50 %.
UNLABELLED = "50"
#: Of ratios without a preset, the nearest one and what to change.
PRESETS = {"20": "paper-7b-20", "25": "paper-7b-25", "50": "paper-7b-50", "70": "paper-7b-50 --sparsity 0.7"}


def command(number: int, row: Row) -> Command:
    """What makes this row of Table `number`."""
    special = {1: _memory, 8: _latency, 9: _cost, 10: _teachers, 11: _stages, 12: _gap, 13: _interval}
    if number in special:
        return special[number](row)
    if number in (16, 17):
        made = trained(row["sparsity_percent"], "--recover none")
        return made.noted("all layers of one run; the Widths tab sets them beside these")
    return _scored(number, row)


def trained(ratio: str, *options: str, model: str = "LLaMA-7B", measured: str = AS_NUTEPRUNE) -> Command:
    """Prune as its Section 4.1 does, and measure as it does."""
    return prune(model, f"--method nuteprune --preset {PRESETS[ratio]}", *options, measured)


def _scored(number: int, row: Row) -> Command:
    model, name, tuned = row["model"], row["method"], row.get("tuned") == "yes"
    ratio = row["sparsity_percent"] or UNLABELLED
    measured = AS_NUTEPRUNE + (",mmlu,bbh" if number == 7 else "")
    if ratio == "0":
        return evaluate(model, measured)
    if name in OTHERS:
        return none(OTHERS[name])
    if name in RULES:
        post = "" if tuned else "--recover none"
        made = trained(ratio, f"--set {RULES[name]}", post, model=model, measured=measured)
        return made.noted("NutePrune's budget and training") if name == "LoRAPrune" else made
    if name == "WANDA":
        return _others(row, ratio, "wanda", TUNED, measured)
    if name == "LLM-Pruner":  # whose rows they are shows in LLM-Pruner's Tables 1 and 16
        method = "taylor_first" if ratio == "50" and not tuned else "taylor_second"
        return _others(row, ratio, method, TUNED if tuned else "", measured)
    if name == "‡NutePrune":
        alone = "" if tuned else "--set lora_rank=0"
        return trained(ratio, alone, "--recover none", model=model, measured=measured)
    return trained(ratio, model=model, measured=measured)


def _others(row: Row, ratio: str, method: str, tuned: str, measured: str) -> Command:
    """LLM-Pruner's way of cutting, measured as NutePrune does."""
    cut = "--layers 3:31 --sparsity 0.8" if ratio == "70" else commands_llm_pruner.BLOCKS[ratio]
    if row["model"].endswith("13B"):
        cut = commands_llm_pruner.BLOCKS_13B
    read = commands_llm_pruner.CALIBRATED
    made = prune(row["model"], f"--method {method}", cut, read, tuned, measured)
    return made.noted("how this baseline was set is not said; as LLM-Pruner sets itself")


def _memory(row: Row) -> Command:
    if row["method"] == "LLM-Pruner":
        return commands_llm_pruner.cut({}, "20", "taylor_first").noted("memory is in `efficiency.json`")
    teacher = "--set distillation=second_model" if row["method"] == "KD" else ""
    return trained("20", teacher, "--recover none").noted("the training's memory is on the Runs tab")


def _latency(row: Row) -> Command:
    ratio = row["sparsity_percent"]
    if ratio == "0":
        made = evaluate("LLaMA-7B", "--max-new-tokens 256")
    elif row["method"] == "LLM-Pruner":
        made = commands_llm_pruner.cut({}, ratio, "taylor_second")
    else:
        made = trained(ratio, "--recover none")
    return made.noted(
        "vLLM there, and the time from 64 to 256 tokens; here transformers, reading and writing apart"
    )


def _teacher(row: Row) -> str:
    taught = "dense" if row["distillation"] == "yes" else "none"
    return f"--set distillation={'progressive' if row['progressive'] == 'yes' else taught}"


def _cost(row: Row) -> Command:
    layer = "" if row["layer_loss"] == "yes" else "--set layer_weight=0"
    made = trained("20", _teacher(row), layer, "--recover none")
    return made.noted("memory and seconds a step are on the Runs tab, beside this table")


def _teachers(row: Row) -> Command:
    return trained("50", _teacher(row), "--recover none").noted("for its 20 % paper-7b-20")


def _stages(row: Row) -> Command:
    stages = f"--set stage_1={SWITCH[row['stage_1']]} --set stage_2={SWITCH[row['stage_2']]}"
    return trained("50", stages, "--recover none").noted("masks only: add --set lora_rank=0")


def _gap(row: Row) -> Command:
    return trained("50", f"--set gap={int(row['sparsity_gap_percent']) / 100:g}", "--recover none")


def _interval(row: Row) -> Command:
    interval = int(row["snapshot_interval"].partition("%")[0]) / 100
    return trained("50", f"--set interval={interval:g}", "--recover none")
