"""Methods that train, as the forms and the command line know them: their presets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.errors import UnknownNameError
from core.methods import method_of, with_preset
from core.spec.run import RunSpec


def test_presets_change_what_they_say_and_keep_the_rest() -> None:
    chosen = with_preset(RunSpec(seed=3), "nuteprune", "paper-7b", None)
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
    with pytest.raises(UnknownNameError, match="demo, paper-7b"):
        with_preset(RunSpec(), "nuteprune", "paper", None)
