"""The commands that cut, measure and use models. torch is loaded when one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from core import methods
from core.cli import options
from core.cli.ask import RUNS, ask, detached, emit_run, foreground, read_spec_file, with_errors
from core.cli.recover import with_preset
from core.cli.terminal import keys_and_values, score_lines
from core.errors import SpecError
from core.methods import METHODS
from core.runs.artifacts import read_metrics
from core.runs.command_line import RANKING
from core.runs.records import record
from core.spec.checks import check_name, parse_sparsity
from core.spec.prune import STRATEGIES
from core.spec.run import RunSpec
from core.spec.units import MANUAL, parse_units, read_plan_file

#: What `prune` prints of `metrics.json`, after the run's directory.
RESULT = (
    "params_before",
    "params_after",
    "sparsity",
    "sparsity_total",
    "ppl_before",
    "ppl_after",
    "seconds",
)

#: The same where the pruned model was trained, and where the couplings were ignored.
TRAINED = ("ppl_pruned", "ppl_recovered")

ABLATED = ("ppl_coupled", "without_dependency")

#: Benchmarks, where some were asked for: of the dense model, the pruned one and the final one.
SCORED = ("tasks_before", "tasks_pruned", "tasks_after")


def prune(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="'demo', a hub id, a folder, or a .gguf file.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", help="What ranks units, or trains; see `methods`. Default: taylor_first."),
    ] = None,
    sparsity: Annotated[
        str | None,
        typer.Option(
            "--sparsity", help="Fraction of the block parameters that goes, in [0, 1). Default: 0.2."
        ),
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            "--scope", help="How the target is spread: local, global or standardised. Default: local."
        ),
    ] = None,
    kinds: options.Kinds = None,
    layers: options.Layers = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy", help="Short for --kinds: block (heads and FFN channels) or channel (hidden)."
        ),
    ] = None,
    kind_sparsity: Annotated[
        list[str] | None,
        typer.Option(
            "--kind-sparsity", metavar="KIND=S,...", help="A target of its own for a kind: ffn_channel=0.3."
        ),
    ] = None,
    multiple: Annotated[
        int | None,
        typer.Option("--multiple", help="Keep channels in whole multiples: 8, 32, 64, 128. Default: 1."),
    ] = None,
    reconstruct: Annotated[
        str | None,
        typer.Option(
            "--reconstruct",
            help="Refit what stays, without training: none, bias, least_squares, pre_pruning. Default: none.",
        ),
    ] = None,
    without_dependency: options.WithoutDependency = None,
    units: Annotated[
        list[str] | None,
        typer.Option(
            "--units",
            metavar="GROUP=UNITS",
            help="Remove exactly these instead of ranking: L03.query_head=0-3,7. May be repeated.",
        ),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="Remove exactly the units in this plan.json.")
    ] = None,
    spec_file: Annotated[
        Path | None, typer.Option("--spec", help="A saved spec.json to run again; other options change it.")
    ] = None,
    recover: options.Recover = None,
    preset: options.Preset = None,
    recover_data: options.RecoverData = None,
    targets: options.Targets = None,
    rank: options.Rank = None,
    alpha: options.Alpha = None,
    lora_dropout: options.LoraDropout = None,
    learning_rate: options.LearningRate = None,
    warmup: options.Warmup = None,
    epochs: options.Epochs = None,
    steps: options.Steps = None,
    batch: options.Batch = None,
    micro_batch: options.MicroBatch = None,
    recover_length: options.RecoverLength = None,
    eval_every: options.EvalEvery = None,
    held: options.Held = None,
    detach: options.Detach = False,
    runs_dir: options.RunsDir = RUNS,
    name: options.Name = None,
    seed: options.Seed = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    trust_remote_code: options.TrustRemoteCode = None,
    set: options.Set = None,
    calibration: options.Calibration = None,
    samples: options.Samples = None,
    length: options.Length = None,
    ppl: options.Ppl = None,
    window: options.Window = None,
    tokens: options.Tokens = None,
    prompt: options.Prompt = None,
    max_new_tokens: options.MaxNewTokens = None,
    efficiency: options.Efficiency = None,
    int8: options.Int8 = None,
    tasks: options.Tasks = None,
    limit: options.Limit = None,
    num_fewshot: options.NumFewshot = None,
    benchmarks_dir: options.BenchmarksDir = None,
    as_json: options.Json = False,
) -> None:
    """Prune a model to a target, measure it before and after, and save it."""
    if model is None and spec_file is None:
        raise SpecError("prune needs a MODEL, got none; give 'demo', a hub id, a folder or a .gguf file.")
    if strategy is not None:
        kinds = _kinds_of(strategy, kinds)
    values = {**locals(), "sparsity": None if sparsity is None else parse_sparsity(sparsity)}
    base = read_spec_file(spec_file)
    if (method or base.prune.method) in METHODS.names():  # then the preset and the steps are the method's
        base = methods.with_preset(base, method or base.prune.method, preset, steps)
        values["steps"] = None
    else:
        base = with_preset(base, recover, preset)
    spec = ask("prune", model, {**values, **_by_hand(values, base)}, base)
    if detach:
        run_dir = detached(runs_dir, spec)
        return emit_run(run_dir, {"id": run_dir.name}, as_json, [f"state   {record(run_dir)['state']}"])
    run_dir = foreground(runs_dir, spec)
    metrics = read_metrics(run_dir)
    result = {key: metrics[key] for key in (*RESULT, *TRAINED, *ABLATED, *SCORED) if key in metrics}
    shown = with_errors({key: value for key, value in result.items() if key not in SCORED}, metrics)
    scores = {key.removeprefix("tasks_"): metrics[key] for key in SCORED if key in metrics}
    return emit_run(run_dir, result, as_json, [*keys_and_values(shown), *score_lines(scores)])


def _by_hand(values: dict[str, Any], base: RunSpec) -> dict[str, Any]:
    """Units and method where the units are given; what would rank them is refused beside them."""
    given = [f"--{name}" for name in ("units", "plan") if values[name] is not None]
    if len(given) > 1:
        raise SpecError("Give either --units or --plan, got both.")
    if not given and not base.prune.units:
        return {}
    names = [path.removeprefix("prune.") for path in RANKING]
    stray = [
        f"--{name.replace('_', '-')}" for name in names if values[name] is not None and values[name] != MANUAL
    ]
    if stray:
        raise SpecError(f"{(given or ['--spec'])[0]} says which units go, so leave out {', '.join(stray)}.")
    if not given:
        return {}
    units = parse_units(values["units"]) if values["units"] is not None else read_plan_file(values["plan"])
    return {"units": units, "method": MANUAL}


def _kinds_of(strategy: str, kinds: str | None) -> str:
    check_name("strategy", strategy, list(STRATEGIES))
    if kinds is not None:
        raise SpecError(f"--strategy {strategy} says which kinds go; leave out --kinds {kinds}.")
    return ",".join(STRATEGIES[strategy])
