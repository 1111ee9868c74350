"""NutePrune as a method that `prune` can be asked for. torch is loaded when it runs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import SpecError
from core.runs.artifacts import CHECKPOINT
from core.spec.nuteprune import OPTIONS, PRESETS, Settings, check
from core.spec.prune import PruneSpec

#: Below the run's checkpoints.
FOLDER = "nuteprune"


class NutePrune:
    """See `core.methods.Method`."""

    presets = PRESETS
    preset = "demo"

    def check(self, asked: PruneSpec, options: Mapping[str, Any]) -> None:
        """Raises SpecError where the options do not fit together, or not with what is asked."""
        check(Settings(**options), max([asked.sparsity, *asked.kind_sparsity.values()]))
        if asked.reconstruct != "none":
            raise SpecError(
                f"reconstruct must be none for a method that trains, got {asked.reconstruct}; it would undo "
                "what was learned. Leave it out, or rank with a criterion."
            )

    def check_device(self, options: Mapping[str, Any], device: Any) -> None:
        """Raises SpecError where not so many processes can train, the first on this device."""
        from core.nuteprune.team import devices

        devices(device, Settings(**options).processes)

    def start_from(self, options: Mapping[str, Any]) -> str | None:
        """The criterion whose scores order the units at the start.

        Magnitude is nothing but that order, and LoRA's gradients say nothing before the first step.
        """
        if options.get("rule") in ("magnitude", "lora_gradient") and not options.get("start_from"):
            return "l2"
        return options.get("start_from", OPTIONS["start_from"].default) or None

    def start_samples(self, options: Mapping[str, Any]) -> int:
        """How many of the calibration windows that criterion reads."""
        return int(options.get("start_samples", OPTIONS["start_samples"].default))

    def forget(self, run_dir: Path) -> None:
        """Remove the checkpoint and the teachers of a training whose result is saved."""
        shutil.rmtree(run_dir / CHECKPOINT / FOLDER, ignore_errors=True)

    def __call__(self, options: Mapping[str, Any], work: Any, loaded: Any, graph: Any, scores: Any) -> Any:
        """Train, then write down the plan. Returns it, and the model with what was learned in its weights."""
        from core.nuteprune import stage

        first = self.start_from(options)
        trainer = stage.train(work, loaded, graph, Settings(**options), scores[first] if first else None)
        return stage.finish(work, loaded, graph, trainer)
