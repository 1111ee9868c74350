"""A spec as the command that asks for it, and a run as one record. Nothing here needs torch."""

from __future__ import annotations

import shlex
from typing import Any

from core.methods import preset_of, with_preset
from core.spec.fields import field_of
from core.spec.run import RunSpec
from core.spec.units import units_entries

#: Option -> the field of the spec it sets.
SHARED = {
    "--name": "name",
    "--seed": "seed",
    "--device": "model.device",
    "--dtype": "model.dtype",
    "--trust-remote-code": "model.trust_remote_code",
}

CALIBRATION = {
    "--calibration": "calibration.name",
    "--samples": "calibration.samples",
    "--length": "calibration.length",
}

PERPLEXITY = {"--ppl": "evaluate.text", "--window": "evaluate.window"}

MEASURING = {
    **PERPLEXITY,
    "--tokens": "evaluate.tokens",
    "--prompt": "evaluate.prompts",
    "--max-new-tokens": "evaluate.max_new_tokens",
    "--efficiency": "evaluate.efficiency",
    "--int8": "evaluate.int8",
    "--tasks": "evaluate.tasks",
    "--limit": "evaluate.limit",
    "--num-fewshot": "evaluate.num_fewshot",
    "--benchmarks-dir": "evaluate.benchmarks_dir",
}

PRUNING = {
    "--method": "prune.method",
    "--sparsity": "prune.sparsity",
    "--scope": "prune.scope",
    "--kinds": "prune.kinds",
    "--layers": "prune.layers",
    "--set": "prune.options",
    "--units": "prune.units",
    "--kind-sparsity": "prune.kind_sparsity",
    "--multiple": "prune.multiple",
    "--reconstruct": "prune.reconstruct",
    "--without-dependency": "prune.without_dependency",
}

TRAINING = {
    "--recover-data": "recover.data",
    "--targets": "recover.targets",
    "--rank": "recover.rank",
    "--alpha": "recover.alpha",
    "--lora-dropout": "recover.dropout",
    "--learning-rate": "recover.learning_rate",
    "--warmup": "recover.warmup",
    "--epochs": "recover.epochs",
    "--steps": "recover.steps",
    "--batch": "recover.batch",
    "--micro-batch": "recover.micro_batch",
    "--recover-length": "recover.length",
    "--eval-every": "recover.eval_every",
    "--held": "recover.held",
}

EXPLORING = {
    "--analyses": "explore.analyses",
    "--config-only": "explore.config_only",
    "--criterion": "explore.criteria",
    "--tau": "explore.tau",
    "--ratio": "explore.sensitivity_ratios",
    "--of": "explore.sensitivity_kinds",
    "--ratio-by": "explore.sensitivity_criterion",
    "--ratio-tokens": "explore.sensitivity_tokens",
    "--set": "explore.options",
}

#: Seed and number of windows are axes here.
SWEEPING = {
    **{f"--{axis}": f"sweep.{axis}" for axis in ("methods", "sparsities", "scopes")},
    **{"--reconstructs": "sweep.reconstruct", "--seeds": "sweep.seeds", "--samples": "sweep.samples"},
    **{"--kinds": "prune.kinds", "--layers": "prune.layers"},
}

SHARED_BY_SWEEPS = {
    option: path
    for option, path in {**CALIBRATION, **SHARED}.items()
    if option not in ("--samples", "--seed")
}

OPTIONS = {
    "prune": {**PRUNING, "--recover": "recover.method", **TRAINING, **CALIBRATION, **SHARED, **MEASURING},
    "recover": {**TRAINING, **SHARED},
    "explore": {**EXPLORING, **CALIBRATION, **SHARED, **PERPLEXITY},
    "evaluate": {**MEASURING, **SHARED},
    "sweep": {**SWEEPING, **SHARED_BY_SWEEPS, **PERPLEXITY, "--tokens": "evaluate.tokens"},
}

#: Written out even where they are the default: they are what the run is about.
ALWAYS = ("prune.method", "prune.sparsity", "sweep.methods", "sweep.sparsities")

#: Left out where the units were chosen by hand: it follows from them.
RANKING = tuple(
    f"prune.{name}"
    for name in ("method", "sparsity", "scope", "kinds", "layers", "kind_sparsity", "multiple")
)

#: Given once per value; other lists are given with commas.
REPEATED = ("evaluate.prompts", "explore.criteria")


def command_line(spec: RunSpec) -> str:
    """The command that asks for the same run, to be typed into a shell."""
    words, base = ["python", "-m", "core", spec.goal, spec.model.source], RunSpec()
    if preset := preset_of(spec):
        base = with_preset(base, spec.prune.method, preset.name, None)
    for option, path in OPTIONS[spec.goal].items():
        value = field_of(spec, path)
        if spec.prune.units and path in RANKING:
            continue
        if option == "--method" and preset:
            words += [*_words(option, path, value), "--preset", preset.name]
        elif option == "--set" and preset:
            words += _words(option, path, preset.beside)
        elif path in ALWAYS or value != field_of(base, path):
            words += _words(option, path, value)
    return shlex.join(words)


def _words(option: str, path: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [option if value else option.replace("--", "--no-", 1)]
    if isinstance(value, dict):
        named = [f"{key}={_written(one)}" for key, one in value.items()]
        entries = units_entries(value) if path == "prune.units" else named
        return [word for entry in entries for word in (option, entry)]
    if path in REPEATED:
        return [word for one in (value or ("",)) for word in (option, str(one))]
    return [option, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
