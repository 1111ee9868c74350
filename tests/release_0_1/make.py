"""The script that made what lies beside it, with release 0.1.0 at commit 432b7a6: kept, not made again.

`written/` is what that release wrote, and every later one must go on reading it; `expected.json` is what that
release read in it. To watch them being made, check out the commit that added this file and run
`python -m tests.release_0_1.make FOLDER`: FOLDER gets the same, but for times and rounding.

These are the commands of that release, and need not work any more.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from core.artifacts import STATUS, STOP, read_json, read_spec, write_json, write_text
from core.commands import full_record
from core.events import Event
from core.launch import create, list_runs
from core.processes import host
from core.worker import execute
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from core.__main__ import main
from core.errors import StopRequested
from tests.release_0_1.reading import MODELS, RUNS, describe, describe_model, run_of

#: The run that is stopped ends after this step.
LAST_STEP = 4

PPL = "--ppl evaluation.txt --window 32"
MEASURED = f"{PPL} --tokens 256 --max-new-tokens 8"
PLAIN = f"{MEASURED} --no-efficiency --prompt The"
TEXT = "--calibration calibration.txt --samples 4 --length 32"
LORA = (
    "--recover-data calibration.txt --rank 2 --alpha 4 --learning-rate 0.005 --warmup 1 --steps 4 --batch 4 "
    "--micro-batch 4 --recover-length 32 --eval-every 2 --held 4"
)
TRAINED = (
    "--set steps=6 --set batch=2 --set precision=no --set lora_rank=1 --set gap=0.1 --set interval=0.05 "
    "--set held=2 --set measure_every=4 --set checkpoint_every=3 --set start_from=taylor_first "
    "--set start_samples=4"
)
#: Name of a run -> the command that wrote it; `{name}` is the folder of an earlier one.
COMMANDS = {
    "explored": (
        f"explore llama {TEXT} {PPL} --criterion taylor_first --criterion wanda --criterion l2 --tau 0.3 "
        "--of attention,ffn,head --ratio 0.25,0.5 --ratio-tokens 64"
    ),
    "ragged": (
        f"prune llama {TEXT} {MEASURED} --method taylor_first --sparsity 0.3 --scope global --int8 "
        "--prompt The --prompt Once --tasks bundled_capitals --limit 4"
    ),
    "refitted": (
        f"prune llama {TEXT} {PLAIN} --method wifv --sparsity 0.4 --scope standardised --seed 3 --multiple 2 "
        "--kind-sparsity query_head=0.25,ffn_channel=0.4 --reconstruct least_squares"
    ),
    "recovered": (
        f"prune llama {PLAIN} --units L00.kv_group=0 --units L01.kv_group=1 --units L00.ffn_channel=0-4 "
        f"--units L01.ffn_channel=2,5-8 --recover lora {LORA}"
    ),
    "trained": (
        f"prune llama --calibration calibration.txt --samples 16 --length 16 {PLAIN} "
        f"--method nuteprune --sparsity 0.3 {TRAINED}"
    ),
    "fused": (
        f"prune gpt2 {TEXT} {PLAIN} --method wanda --sparsity 0.3 --scope global --dtype bfloat16 "
        "--kinds query_head,ffn_channel,residual_channel"
    ),
    "uncoupled": (
        f"prune llama {TEXT} {PLAIN} --method taylor_first --sparsity 0.2 --kinds ffn_channel --layers 1:2 "
        "--without-dependency"
    ),
    "swept": (
        f"sweep llama {PPL} --tokens 256 --calibration calibration.txt --length 32 --samples 4 "
        "--methods l2,wanda --sparsities 0.1,0.3"
    ),
    "measured": (
        "evaluate {ragged} --ppl bundled --window 64 --tokens 256 --max-new-tokens 8 --prompt The "
        "--tasks bundled_capitals,bundled_next_sentence --limit 3"
    ),
    "recovered_later": f"recover {{refitted}} {LORA} --targets attention",
    "failed": f"evaluate llama {PLAIN} --window 2048 --tokens 4096",
}


def write_dense(folder: Path, config: PretrainedConfig) -> None:
    """A random model of this config with its tokenizer, in the hub's layout."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            norm = name.endswith("weight") and value.dim() == 1
            value.copy_(torch.randn_like(value) * 0.2 + norm)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def dense_models(folder: Path) -> None:
    """A Llama with two query heads to every key-value head, and a GPT-2 with its fused projections."""
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    llama = LlamaConfig(
        vocab_size=100, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=4, max_position_embeddings=2048, tie_word_embeddings=True, **ends,
    )  # fmt: skip
    gpt2 = GPT2Config(vocab_size=100, n_embd=8, n_inner=16, n_layer=2, n_head=4, n_positions=64, **ends)
    write_dense(folder / "llama", llama)
    write_dense(folder / "gpt2", gpt2)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character, 100 in all."""
    entries = ["<pad>", "<s>", "</s>", "<unk>", "\n", *map(chr, range(32, 127))]
    raw = Tokenizer(models.WordLevel({entry: i for i, entry in enumerate(entries)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    raw.decoder = decoders.Fuse()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, **special)


def write_texts(folder: Path) -> None:
    """A text that calibrates and trains, and one that measures."""
    who, what = ("The miller", "Anna", "A sailor", "Nobody"), ("counts", "sells", "paints", "remembers")
    whom, draw = ("three boats", "the old bridge", "her letters", "seven loaves of bread"), random.Random(0)
    for name in ("calibration.txt", "evaluation.txt"):
        said = [f"{draw.choice(who)} {draw.choice(what)} {draw.choice(whom)}." for _ in range(60)]
        (folder / name).write_text(" ".join(said) + "\n")


def run_all(runs: Path) -> None:
    """Run every command by itself, then train once more and stop in between."""
    for name, command in COMMANDS.items():
        asked = [str(run_of(runs, word[1:-1])) if word.startswith("{") else word for word in command.split()]
        code = main([*asked, "--name", name, "--device", "cpu", "--runs-dir", str(runs)])
        assert code == (2 if name == "failed" else 0), name
    stop_in_between(runs)


def stop_in_between(runs: Path) -> None:
    """The run that trains, asked to stop in the middle: it leaves a checkpoint."""
    spec = replace(read_spec(run_of(runs, "trained")), name="stopped", extra={})
    run_dir = create(runs, spec, mine=True)

    def stop(event: Event) -> None:
        if event.type == "metric" and event.stage == "train" and event.data["step"] == LAST_STEP:
            write_text(run_dir / STOP, "")

    try:
        execute(run_dir, stop)
    except StopRequested:
        return
    raise AssertionError("the run came to its end")


def make_neutral(folder: Path) -> None:
    """Take out what belongs to this machine: paths become relative to `folder`, the host has no name."""
    here, project = f"{folder}/", f"{Path(__file__).resolve().parents[2]}/"
    libraries = [f"{Path(root)}/" for root in (sys.prefix, Path(sys.prefix).resolve())]
    for path in filter(Path.is_file, folder.rglob("*")):
        if path.suffix == ".safetensors":
            assert here.encode() not in path.read_bytes(), path
            continue
        text = path.read_text(encoding="utf-8")
        for root in (here, f"{folder.parent}/", *libraries, project):
            text = text.replace(root, "")
        path.write_text(text, encoding="utf-8")
        if path.name == STATUS:
            write_json(path, {**read_json(path), "host": "machine"})
            assert host() not in path.read_text()


def by_line(expected: dict[str, dict[str, Any]]) -> str:
    """JSON with a line for every model and every run."""
    parts = []
    for part, found in expected.items():
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(one)}" for name, one in found.items())
        parts.append(f" {json.dumps(part)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def make(out: Path) -> None:
    """Write `written/` and `expected.json`."""
    out, folder = out.resolve(), out.resolve() / "written"
    folder.mkdir(parents=True)
    os.environ["PRUNEVIZ_CACHE"] = str(out / "cache")
    os.chdir(folder)
    dense_models(folder)
    write_texts(folder)
    run_all(folder / RUNS)
    make_neutral(folder)
    runs = {full_record(path)["name"]: path for path in reversed(list_runs(folder / RUNS))}
    for name in runs.keys() - MODELS:  # for size
        shutil.rmtree(runs[name] / "model", ignore_errors=True)
    shutil.rmtree(folder / "gpt2")
    (folder / RUNS / ".lock").unlink()
    expected = {
        "models": {name: describe_model(runs[name] / "model") for name in MODELS},
        "runs": {name: describe(path) for name, path in runs.items()},
    }
    (out / "expected.json").write_text(by_line(expected))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
