"""Which text scores the units of a model."""

from __future__ import annotations

from core.checked import checked
from core.option import option
from core.spec.texts import CALIBRATE_ON, MIXED


@checked
class DataSpec:
    """Calibration text."""

    name: str = option(
        MIXED,
        "Text that scores units: bundled (speeches), factbook, mixed (half of each), a named data set (its "
        "train split), a file, a hub data set (owner/name:config:split:column), self (the model writes it), "
        "or none where no criterion reads text.",
        title="Calibration text",
        nonempty=True,
        wanted="mixed, bundled, factbook, a named data set, a file, a hub data set, self or none",
        examples=CALIBRATE_ON,
        called="calibration",
        flag="--calibration",
        metavar="NAME_OR_FILE",
        place=True,
    )
    samples: int = option(16, "Windows of calibration text.", title="Windows of text", ge=1, unit="windows")
    length: int = option(256, "Tokens in each window.", title="Tokens per window", ge=8, unit="tokens")
    batch: int | None = option(
        None,
        "Windows at once, where a criterion reads the gradient over all of them; changes memory, not scores.",
        title="Windows at once",
        called="calibration-batch",
        default_text="all that memory holds",
        ge=1,
        unit="windows",
        flag="--calibration-batch",
    )
