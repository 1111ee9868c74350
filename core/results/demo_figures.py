"""What was measured of the demo model, as far as advice rests on it: the numbers of docs/measured.md."""

from __future__ import annotations

from dataclasses import dataclass

#: Multiply-adds per token of the demo model: other models take about as many times longer as they have more.
DEMO_MACS = 134_479_872
TEXTS = ("WikiText-2 (validation)", "World Factbook")
PROTOCOL = "12 windows of 1,024 tokens, seed 0, two cores"


@dataclass(frozen=True)
class DemoFigure:
    """Perplexities of a way to prune the demo model, on WikiText-2 and the Factbook.

    Attributes:
        share: of the block parameters that go; 0 for the dense model.
        ppl: with its standard error, as docs/measured.md prints it; book: on the Factbook.
        minutes: that the whole run took, measurements included; calibrated: on which text; both are left out
            of the dense model.
    """

    share: float
    ppl: str
    book: str
    minutes: float = 0.0
    calibrated: str = ""

    @property
    def written(self) -> str:
        """As in the tables of docs/measured.md."""
        return f"{self.ppl} ({self.book})"


DENSE = DemoFigure(0.0, "19.6", "12.7")
#: An effort of `core.spec.efforts` -> what it gives at 20 %. The hour was taken before the cut was changed
#: and while other work ran, and the time of `minutes` is that of the cut before, which took as long.
AT_20 = {
    "recommended": DemoFigure(0.2, "37.4 ± 2.4", "19.3 ± 0.5", 3, "facts and speeches"),
    "minutes": DemoFigure(0.2, "29.7 ± 1.8", "13.2 ± 0.4", 18, "facts and speeches"),
    "hour": DemoFigure(0.2, "26.8 ± 1.5", "18.5 ± 0.5", 61, "C4 and cut by ifv, as it was then"),
}
#: The recommended cut at 40 %.
AT_40 = DemoFigure(0.4, "96.7 ± 6.2", "43.7 ± 1.4", 3, "facts and speeches")
