"""A spec as the command that asks for it."""

from __future__ import annotations

import shlex
from typing import Any

from core.methods import preset_of, with_preset
from core.spec.fields import OPTIONS, changed, field_of, paths
from core.spec.prune import ALLOCATION
from core.spec.recommended import RECOMMENDED_FOR, USUAL
from core.spec.run import RunSpec

MODEL = paths("model")
SHARED = ("name", "seed", "data_dir", "track", *MODEL, *paths("cluster"))
CALIBRATION = paths("calibration")
PERPLEXITY = ("evaluate.text", "evaluate.protocol", "evaluate.window")
_SCORING = (*CALIBRATION, *SHARED)
#: Command -> the fields it takes, in the order of its help. Seed and number of windows are axes of a sweep.
TAKES: dict[str, tuple[str, ...]] = {
    "prune": (*paths("prune"), *paths("recover"), *CALIBRATION, *SHARED, *paths("evaluate")),
    "recover": (*paths("recover"), *SHARED),
    "explore": (*paths("explore"), *_SCORING, *PERPLEXITY),
    "evaluate": (*paths("evaluate"), *SHARED),
    "sweep": (
        *(*paths("sweep"), "prune.kinds", "prune.layers", "prune.recovery_samples"),
        *("prune.search_tokens", "prune.search_rounds", "prune.drop_by"),
        *(path for path in _SCORING if path not in ("calibration.samples", "seed")),
        *(*PERPLEXITY, "evaluate.tokens", "evaluate.also"),
    ),
    "score": ("explore.criteria", "explore.options", *_SCORING),
    "similarity": ("explore.tau", *_SCORING),
    "sensitivity": (
        *(path for path in paths("explore") if path.startswith("explore.sensitivity_")),
        *(*_SCORING, *PERPLEXITY),
    ),
    "export": (*paths("export"), "name", "model.trust_remote_code"),
    "groups": ("explore.config_only", *MODEL),
    "advise": ("prune.sparsity", "prune.target", "prune.kinds", "prune.layers", *MODEL),
    "generate": ("evaluate.max_new_tokens", "seed", *MODEL),
}
#: Written out even where they are the default: they are what the run is about.
ALWAYS = ("prune.method", "prune.sparsity", "sweep.methods", "sweep.sparsities")
#: Left out where the units were chosen by hand: it follows from them.
RANKING = ("prune.method", *(f"prune.{name}" for name in ALLOCATION))
#: Left out where nothing is trained.
TRAINING = tuple(path for path in paths("recover") if path != "recover.method")


def command_line(spec: RunSpec) -> str:
    """The command that asks for the same run, to be typed into a shell."""
    typed, base, spec = ["python", "-m", "core", spec.goal, spec.model.source], RunSpec(), spec.settled()
    if preset := preset_of(spec):
        base = with_preset(base, spec.prune.method, preset.name, None)
    if spec.goal == "prune":
        base = _spoken_for(base, spec.prune.method)
    for path in TAKES[spec.goal]:
        value = field_of(spec, path)
        if (spec.prune.units and path in RANKING) or (spec.prune.target and path == "prune.sparsity"):
            continue
        if path in TRAINING and spec.recover.method == "none":
            continue
        if path == "prune.method" and preset:
            typed += [*words(path, value), "--preset", preset.name]
        elif path == "prune.options" and preset:
            typed += words(path, preset.beside)
        elif path in ALWAYS or value != field_of(base, path):
            typed += words(path, value)
    return shlex.join(typed)


def _spoken_for(base: RunSpec, method: str) -> RunSpec:
    """Where nothing else is recommended for a method than is usual, that needs no word."""
    plain = RECOMMENDED_FOR.get(method, USUAL) == USUAL
    return (
        changed(base, dict(zip(("prune.scope", "prune.reconstruct"), USUAL, strict=True))) if plain else base
    )


def words(path: str, value: Any) -> list[str]:
    """The options of the command line that give a field this value."""
    option = OPTIONS[path]
    on, _, off = option.flag.partition("/")
    if option.kind is bool:
        return [on if value else off]
    return [word for text in option.typed(value) for word in (on, text)]
