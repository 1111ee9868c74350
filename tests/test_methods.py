"""Methods that train, as the forms and the command line know them: their presets."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from core.errors import UnknownNameError
from core.methods import method_of, with_preset
from core.runs.command_line import command_line
from core.spec.run import RunSpec


def test_presets_change_what_they_say_and_keep_the_rest() -> None:
    chosen = with_preset(RunSpec(seed=3), "nuteprune", "paper-7b-20", None)
    assert (chosen.seed, chosen.calibration.samples, chosen.calibration.length) == (3, 20_000, 512)
    assert chosen.prune.options["batch"] == 16 and chosen.prune.options["steps"] == 8750
    method = method_of(chosen)
    assert method is not None
    for name in method.component.presets:
        spec = with_preset(RunSpec(), "nuteprune", name, 7)
        settings = method.settings(spec.prune.options)
        method.component.check(spec.prune, settings)
        assert settings.steps == 7
    again = with_preset(
        replace(chosen, prune=replace(chosen.prune, options={"batch": 2})), "nuteprune", None, None
    )
    assert again.prune.options == {"batch": 2}
    with pytest.raises(UnknownNameError, match=r"Did you mean 'paper-7b-\d+'"):
        with_preset(RunSpec(), "nuteprune", "paper-7b", None)


@pytest.mark.parametrize("preset", ["paper-7b-20", "paper-7b-25", "paper-7b-50"])
def test_the_papers_presets_are_its_runs(preset: str) -> None:
    """NutePrune (arXiv:2402.09773), Section 4.1, and its released scripts."""
    spec = with_preset(RunSpec(), "nuteprune", preset, None)
    method = method_of(spec)
    assert method is not None
    settings, recipe = method.settings(spec.prune.options), spec.recover
    target = int(preset.rpartition("-")[2]) / 100
    assert (spec.prune.sparsity, spec.calibration.name) == (target, "c4")
    assert set(spec.prune.kinds) == {"query_head", "ffn_channel", "residual_channel"}
    epoch = 20_000 // 16
    assert (settings.steps, settings.warmup_steps) == (7 * epoch, (4 if target == 0.2 else 1) * epoch)
    assert (settings.gap, settings.interval, settings.settle_step) == (0.1, 0.01, settings.steps)
    assert settings.last == pytest.approx(0.1 / target)
    # 0.1 KL summed over 512 tokens beside 0.9 of the layers: one part of the mean KL to this much.
    assert 0.1 * 512 * settings.layer_weight == pytest.approx(0.9)
    assert 1 / (1 + math.exp(-settings.start)) == pytest.approx(0.99, abs=1e-4)
    assert (settings.lora_rank, settings.lora_alpha, settings.lora_targets) == (8, 8.0, "query_value")
    assert (recipe.method, recipe.data, recipe.epochs, recipe.batch) == ("lora", "alpaca", 3, 16)


def test_what_an_old_preset_asked_for_is_still_read() -> None:
    """A spec holds options and no preset: what `paper-7b` said stands in runs from before."""
    old = {
        "steps": 8750, "batch": 16, "warmup": 4 / 7, "settle": 0.0, "gap": 0.1, "interval": 0.01,
        "mask_rate": 0.1, "lora_rate": 1e-3, "measure_every": 100, "held": 32, "checkpoint_every": 250,
    }  # fmt: skip
    spec = RunSpec.from_run(json.dumps({"prune": {"method": "nuteprune", "options": old}}))
    method = method_of(spec)
    assert method is not None and method.settings(spec.prune.options).lora_schedule == "falling"
    assert "--preset" in command_line(spec)
