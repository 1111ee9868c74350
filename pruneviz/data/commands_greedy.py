"""Greedy Output Approximation's rows: LLM-Pruner's 4:30 for LLaMA, all layers for GPT-2.

Its Table 1 calls 20 % what LLM-Pruner calls so, 25 % of the groups. In Table 3 the same rows stand under
25 %, and 50 % is of the groups, too.
"""

from __future__ import annotations

from pruneviz.data.command_pieces import AS_LLM_PRUNER, TUNED, Command, Row, evaluate, none, prune

#: Ours: criterion and refitting. "SG": on sentences that the model writes itself, "C": on calibration text.
OURS = "--method second_moment"
REMEDY = "--reconstruct pre_pruning --recovery-samples 1024"
SELF, TEXT = "--calibration self", "--calibration bookcorpus"
#: As its tables call a method, without what stands in brackets -> criterion and what goes with it.
METHODS = {
    "Random": f"--method random {TEXT}",
    "L1 norm": f"--method l1 {TEXT}",
    "L2 norm": f"--method l2 {TEXT}",
    "Ours (Self-Gen)": f"{OURS} {SELF}",
    "Ours SG w/o remedy": f"{OURS} {SELF}",
    "Ours SG w/ remedy": f"{OURS} {SELF} {REMEDY}",
    "Ours (Self-Generation w/ remedy)": f"{OURS} {SELF} {REMEDY}",
    "LLM-Pruner Vec": f"--method taylor_vector {TEXT}",
    "LLM-Pruner Vector": f"--method taylor_vector {TEXT}",
    "LLM-Pruner E1": f"--method taylor_first {TEXT}",
    "LLM-Pruner Element1": f"--method taylor_first {TEXT}",
    "LLM-Pruner E2": f"--method taylor_second {TEXT}",
    "LLM-Pruner Element2": f"--method taylor_second {TEXT}",
    "Wanda-sp": f"--method wanda {TEXT}",
    "Wanda-Structured Pruning": f"--method wanda {TEXT}",
    "FLAP UL-UM w/o remed": f"--method wifv --scope local {TEXT} --reconstruct none",
    "FLAP UL-UM w/ remedy": f"--method wifv --scope local {TEXT} --reconstruct bias",
    "FLAP AL-AM w/o remedy": f"--method wifv --scope al_am {TEXT} --reconstruct none",
    "FLAP AL-AM w/ remedy": f"--method wifv --scope al_am {TEXT} --reconstruct bias",
    "Ours (Calibration)": f"{OURS} {TEXT}",
    "Ours (C) w/o remedy": f"{OURS} {TEXT}",
    "Ours C w/ remedy": f"{OURS} {TEXT} {REMEDY}",
    "Ours UL-UM (Calibration w/o remedy)": f"{OURS} {TEXT}",
    "Ours ML-MM (Calibration w/o remedy)": f"{OURS} {TEXT}",
    "LLM-P. LoRA": f"--method taylor_second {TEXT} {TUNED}",
    "LLM-Pruner LoRA": f"--method taylor_second {TEXT} {TUNED}",
}
#: Table 2: heads alone, over all layers -> criterion and what goes with it.
HEADS = {
    "Random": "--method random",
    "L2 Norm": "--method l2",
    "1st+2nd order": "--method taylor_mix",
    "FLAP": "--method wifv --scope al_am --reconstruct none",
}
#: Heads of LLaMA-7B, 32 in each of 32 layers.
ALL_HEADS = 1024
WINDOWS = "--samples 16 --length 128"
#: 13B has 40 layers, of which it says nothing.
LAYERS = {"LLaMA-13B": "--layers 4:38", "GPT-2": "--layers 0:12"}


def command(number: int, row: Row) -> Command:
    """What makes this row of Table `number`."""
    if number == 2:
        return _heads(row)
    model, ratio, name = row["model"], row["sparsity_percent"], row["method"]
    if ratio == "0":
        return evaluate(model, AS_LLM_PRUNER)
    if name == "LLM-Pruner Channel":
        share = f"--method taylor_first --strategy channel --sparsity 0.2 {TEXT}"
        return prune(model, share, WINDOWS, AS_LLM_PRUNER)
    if "ML-MM" in name and model == "GPT-2":
        return none("ML-MM is not explained; of LLaMA's rows those under 25 % are Table 1's")
    share = "--sparsity 0.5" if ratio == "50" else "--sparsity 0.25"
    windows = "--samples 16 --length 1024" if model == "GPT-2" else WINDOWS
    measured = AS_LLM_PRUNER if "boolq" in row else AS_LLM_PRUNER.partition(" --tasks")[0]
    made = prune(model, METHODS[name], LAYERS.get(model, "--layers 4:30"), share, windows, measured)
    return made.noted("which layers of 40 is not said") if model == "LLaMA-13B" else made


def _heads(row: Row) -> Command:
    name, gone = row["method"], int(row["pruned_heads"])
    measured = AS_LLM_PRUNER.partition(" --tasks")[0]
    if not gone:
        return evaluate(row["model"], measured)
    tau = name.partition("τ=")[2].strip(" )")
    ranked = f"--method similar_heads --set tau={tau}" if tau else HEADS[name]
    share = f"--kinds query_head --sparsity {gone / ALL_HEADS:g}"
    made = prune(row["model"], ranked, share, TEXT, WINDOWS, measured)
    return (
        made.noted("as many heads as Algorithm 1 names there; how many it names here, `similarity` says")
        if tau
        else made
    )
