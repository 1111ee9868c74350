"""What the buttons launch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from core.errors import ModelError
from core.runs import launch as launcher
from core.spec.explore import ANALYSES, FORWARD_ONLY, Analysis, ExploreSpec
from core.spec.run import RunSpec
from core.stages.early import check_early
from pruneviz.context import AppContext
from pruneviz.data.cards import weightless


def explore_spec(app: AppContext, model: str, analyses: tuple[Analysis, ...], **settings: Any) -> RunSpec:
    """What an exploring run is asked to do; `settings` are fields of ExploreSpec.

    Of a model without weights only the groups can be found: who asks for everything gets those.

    Raises:
        SpecError: settings that do not fit.
        ModelError: the model has no weights, and what is asked for needs them.
    """
    if weightless(model):
        if analyses not in (("groups",), ANALYSES):
            raise ModelError(
                f"{model} has a config but no weights, so only its structure can be shown; put its "
                "weights (.safetensors) into the same folder for this."
            )
        analyses, settings = ("groups",), {**settings, "config_only": True}
    if app.device_map != "none":
        settings = {**FORWARD_ONLY, **settings}
    asked = ExploreSpec(analyses=analyses, **settings)
    return replace(app.usual(model), goal="explore", explore=asked)


def launch(app: AppContext, spec: RunSpec) -> Path:
    """Queue `spec` and start it if nothing else runs.

    Raises:
        PruneError: the request or the model's files say that it cannot be, it cannot be started, or it would
            run a model's own code where nobody has allowed that. No run is left of it.
    """
    if spec.model.trust_remote_code and not app.allow_remote_code:
        raise ModelError(
            f"This would run code that comes with {spec.model.source}. Read that code; if you trust it, "
            "start the dashboard with --allow-remote-code."
        )
    check_early(spec)
    return launcher.start(app.runs_dir, spec)
