"""From a plan to a folder that loads: the model is cut, and, measured and trained, it is saved."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from core.errors import ArtifactError, NotPrunableError
from core.files import write_json
from core.models.again import cut_loaded
from core.models.card_head import hub_data, inherited
from core.models.demo import DEMO_HUB
from core.models.saved import save
from core.models.stored import round_to
from core.results.agreement import CHECK, Agreement, Check, read_check
from core.runs.artifacts import CHECKPOINT, MODEL, PLAN
from core.stages import metrics
from core.stages.work import State, kept


def surgery(state: State) -> None:
    """Cut the model in place, and keep how close every layer came to what it gave under masks.

    Raises:
        NotPrunableError: what was cut does something else; says what is kept, and where.
    """
    work, plan = state.work, state.plan

    def keep(agreements: list[Agreement]) -> None:
        write_json(work.run_dir / CHECK, asdict(Check(cut=agreements)))
        work.recorder.artifact(CHECK)

    try:
        state.loaded = cut_loaded(state.loaded, state.graph, plan, on_checked=keep)
    except NotPrunableError as error:
        raise NotPrunableError(f"{error} {_what_is_kept(work.run_dir)}") from error
    settle(state)


def settle(state: State) -> None:
    """Round what was cut or trained to what will be saved of it: that is what is then measured."""
    round_to(state.loaded.model, state.loaded.stored)


def _what_is_kept(run_dir: Path) -> str:
    """What a run that cannot go on leaves, and where: nothing that was learned is lost with it."""
    learned = any((run_dir / CHECKPOINT).glob("*/*.safetensors"))
    parts = [f"the plan in {PLAN}", "what was measured in checkpoint/"]
    parts += ["all that was trained in checkpoint/, too"] if learned else []
    parts += [f"the numbers of the check in {CHECK}"] if (run_dir / CHECK).is_file() else []
    return f"Nothing is lost: {run_dir} keeps {', '.join(parts)}; resuming the run goes on from there."


def export(state: State) -> None:
    """Save the pruned model where `from_pretrained` finds it."""
    state.metrics = {**metrics.pruning(state), **state.metrics}
    folder = state.work.run_dir / MODEL
    loaded, facts = state.loaded, {**state.metrics, **_origin(state)}
    assert loaded.graph and loaded.plan, "the model was cut"
    parts = (loaded.model, loaded.tokenizer, loaded.graph, loaded.plan, folder)
    try:
        saved = save(*parts, facts=facts, dtype=loaded.stored)
    except ArtifactError as error:
        raise ArtifactError(f"{error} {_what_is_kept(state.work.run_dir)}") from error
    earlier = kept(read_check, state.work.run_dir) or Check()
    write_json(state.work.run_dir / CHECK, asdict(replace(earlier, saved=saved)))
    state.work.recorder.artifact(CHECK)
    ways = " and ".join(row.where for row in saved)
    state.work.recorder.message(f"Read back in a process of its own {ways}: it computes what was saved")
    state.work.recorder.artifact(MODEL)


def _origin(state: State) -> dict[str, Any]:
    """What a model's card says of where it comes from, besides what was measured."""
    loaded, spec = state.loaded, state.work.spec
    on_hub = DEMO_HUB if spec.model.source == "demo" else spec.model.source if loaded.revision else None
    before = inherited(loaded.folder, on_hub)
    used = [state.metrics.get("calibration_text") and spec.calibration.name]
    used += [spec.recover.data] if state.metrics.get("recover_method") else []
    datasets = dict.fromkeys([*before.get("datasets", []), *hub_data(*used)])
    return {**before, "datasets": [*datasets], "reconstruct": spec.prune.reconstruct}
