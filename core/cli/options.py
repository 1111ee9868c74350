"""The options that several commands share, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="'demo', a hub id, a folder, or a .gguf file.")
]
ModelOrRun = Annotated[
    str,
    typer.Argument(
        metavar="MODEL_OR_RUN",
        help="'demo', a hub id, a folder, a .gguf file, or a finished run: its id or its folder.",
    ),
]
PrunedRun = Annotated[
    str, typer.Argument(metavar="RUN", help="A finished pruning run: its id or its folder.")
]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder that keeps all runs.")]
Detach = Annotated[bool, typer.Option("--detach", help="Leave it to a worker and print its id.")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object.")]
Name = Annotated[str | None, typer.Option("--name", help="A name for the run, for people.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of every random choice. Default: 0.")]
ConfigOnly = Annotated[bool, typer.Option("--config-only", help="Read the config, not the weights.")]
Device = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, cuda:1, mps, or auto: the best there is. Default: auto."),
]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="float32, bfloat16, float16, or auto: by the device. Default: auto."),
]
TrustRemoteCode = Annotated[
    bool | None,
    typer.Option(
        "--trust-remote-code/--no-trust-remote-code", help="Run code that comes with the model. Default: no."
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="NAME_OR_FILE",
        help="Text that scores units: bundled, a file, a hub data set (owner/name:config:split), "
        "self (the model writes it), or none. Default: bundled.",
    ),
]
Samples = Annotated[int | None, typer.Option("--samples", help="Windows of calibration text. Default: 16.")]
Length = Annotated[int | None, typer.Option("--length", help="Tokens in each window. Default: 128.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="An option of the method's or criterion's own; may be repeated. See `methods`.",
    ),
]
Ppl = Annotated[
    str | None,
    typer.Option(
        "--ppl",
        metavar="TEXT",
        help="Text for perplexity: bundled, a file, or a hub data set. Default: bundled.",
    ),
]
Window = Annotated[
    int | None, typer.Option("--window", help="Tokens in each window of perplexity. Default: 256.")
]
Tokens = Annotated[int | None, typer.Option("--tokens", help="Tokens of perplexity in all. Default: 4096.")]
Prompt = Annotated[
    list[str] | None,
    typer.Option("--prompt", help="A prompt to complete; may be repeated; '' for none. Default: three."),
]
MaxNewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", help="Tokens to generate for each prompt. Default: 48.")
]
WithoutDependency = Annotated[
    bool | None,
    typer.Option(
        "--without-dependency/--with-dependency",
        help="An ablation: cut every matrix by its own scores, and compare; no model is saved. Default: no.",
    ),
]
Efficiency = Annotated[
    bool | None,
    typer.Option("--efficiency/--no-efficiency", help="Measure latency and memory. Default: yes."),
]
Int8 = Annotated[
    bool | None,
    typer.Option("--int8/--no-int8", help="Measure them with weights in 8 bits, too. Default: no."),
]
Tasks = Annotated[
    str | None,
    typer.Option(
        "--tasks",
        help="Benchmarks: commonsense (seven and their average), mmlu, bbh, bundled_capitals, "
        "bundled_next_sentence, or any lm-eval task, with commas. Default: none.",
    ),
]
Limit = Annotated[
    int | None, typer.Option("--limit", help="Questions of each task, the first ones. Default: all.")
]
NumFewshot = Annotated[
    int | None,
    typer.Option(
        "--num-fewshot", help="Examples in the prompt. Default: MMLU 5, BBH 3, else what the task says."
    ),
]
BenchmarksDir = Annotated[
    str | None,
    typer.Option(
        "--benchmarks-dir",
        metavar="FOLDER",
        help="Read questions from <task>/<split>.jsonl here. Default: from the hub.",
    ),
]
Tau = Annotated[
    float | None,
    typer.Option("--tau", help="Heads closer than this distance say the same, in [0, 1]. Default: 0.2."),
]
Criteria = Annotated[
    list[str] | None,
    typer.Option("--criterion", help="A criterion to score with; may be repeated. See `methods`."),
]
Ratio = Annotated[
    str | None,
    typer.Option("--ratio", help="Shares of one layer's units removed, with commas. Default: 0.5."),
]
Of = Annotated[
    str | None,
    typer.Option("--of", help="What of a layer: some of attention,ffn,both,head. Default: attention,ffn."),
]
RatioBy = Annotated[
    str | None,
    typer.Option("--ratio-by", metavar="CRITERION", help="What picks those. Default: taylor_first."),
]
RatioTokens = Annotated[
    int | None, typer.Option("--ratio-tokens", help="Tokens of perplexity per point. Default: 1024.")
]
Recover = Annotated[
    str | None,
    typer.Option("--recover", help="How to train the pruned model: none or lora. Default: none."),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="Recipe of the training: paper (LLM-Pruner), or demo (two cores, 20 minutes). Default: paper. "
        "A --method that trains has presets of its own; see `methods`.",
    ),
]
RecoverData = Annotated[
    str | None,
    typer.Option(
        "--recover-data",
        metavar="NAME_OR_FILE",
        help="What to train on: bundled, a text, rows with instruction and output, or a hub data set. "
        "Default: bundled.",
    ),
]
Targets = Annotated[
    str | None,
    typer.Option("--targets", help="Which matrices to train: all, attention or ffn. Default: all."),
]
Rank = Annotated[int | None, typer.Option("--rank", help="Rank of each update. Default: 8.")]
Alpha = Annotated[
    float | None, typer.Option("--alpha", help="Updates are scaled by this over the rank. Default: 16.")
]
LoraDropout = Annotated[
    float | None,
    typer.Option("--lora-dropout", help="Share of an update's inputs dropped, in [0, 1). Default: 0.05."),
]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", help="Highest learning rate. Default: 1e-4.")
]
Warmup = Annotated[
    int | None,
    typer.Option("--warmup", help="Steps until it is reached, a tenth of all at most. Default: 100."),
]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Passes over the data. Default: 2.")]
Steps = Annotated[
    int | None, typer.Option("--steps", help="Optimizer steps of the training, instead of epochs.")
]
Batch = Annotated[int | None, typer.Option("--batch", help="Sequences per step. Default: 64.")]
MicroBatch = Annotated[
    int | None, typer.Option("--micro-batch", help="Of them, so many in memory at once. Default: 4.")
]
RecoverLength = Annotated[
    int | None, typer.Option("--recover-length", help="Tokens per sequence, at most. Default: 256.")
]
EvalEvery = Annotated[
    int | None,
    typer.Option("--eval-every", help="Steps between two looks at the data kept apart. Default: 100."),
]
Held = Annotated[
    int | None,
    typer.Option("--held", help="Sequences kept apart, a tenth of all at most. Default: 64."),
]
Kinds = Annotated[
    str | None, typer.Option("--kinds", help="Unit kinds that may go. Default: query_head,ffn_channel.")
]
Layers = Annotated[
    str | None,
    typer.Option(
        "--layers",
        metavar="FIRST:LAST",
        help="Layers to prune, LAST excluded, or 4-30, 5-30, all as in the papers. Default: all.",
    ),
]
