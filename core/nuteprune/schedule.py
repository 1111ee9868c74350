"""Which snapshot teaches when. Plain numbers, no torch.

Source: NutePrune (arXiv:2402.09773), Section 3.2. Teachers are known by their level: level k was taken
when the student's expected sparsity first reached k intervals. Level 0 is the dense model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DENSE = 0
#: Of floats that should be whole numbers.
_SLACK = 1e-9


@dataclass(frozen=True)
class Schedule:
    """The two stages.

    Attributes:
        target: sparsity to reach; gap: teacher and student are this far apart in stage 1; interval: sparsity
            between two snapshots.
        warmup: steps until the target has risen to its full height; steps: in all.
        last: share of stage 2 that the dense model teaches at the end.
        stage_1, stage_2: whether each stage is progressive; the dense model teaches where it is not.
    """

    target: float
    gap: float
    interval: float
    warmup: int
    steps: int
    last: float = 0.5
    stage_1: bool = True
    stage_2: bool = True

    def level(self, sparsity: float) -> int:
        """The level a student at this expected sparsity has reached; never above the target's."""
        return int(min(sparsity, self.target) / self.interval + _SLACK)

    def reached(self, step: int, sparsity: float) -> bool:
        """Whether stage 1 is over: the target is at its full height and the student as good as there.

        A student that never gets there is not waited for longer than half of what is left after the
        warm-up, or there would be no second stage.
        """
        if step < self.warmup:
            return False
        late = step >= self.warmup + (self.steps - self.warmup) // 2
        return late or sparsity >= self.target - self.interval / 2

    def before_target(self, sparsity: float, levels: Sequence[int]) -> int:
        """Stage 1 (Eq. 8, 9): the latest snapshot that is at least the gap behind, or the dense model.

        Args:
            levels: snapshots there are.
        """
        if not self.stage_1:
            return DENSE
        highest = int((sparsity - self.gap) / self.interval + _SLACK) if sparsity > self.gap else DENSE
        return max((level for level in levels if level <= highest), default=DENSE)

    def after_target(self, step: int, began: int, levels: Sequence[int]) -> int:
        """Stage 2: all teachers one after the other, weakest first, then the dense model to the end.

        A snapshot nearer to the target than the gap is no teacher, as in stage 1 and in the released code.

        Args:
            began: the step at which stage 2 began.
        """
        walk = int((self.steps - began) * (1.0 - self.last))
        weakest = int((self.target - self.gap) / self.interval + _SLACK)
        weakest_first = sorted((level for level in levels if level <= weakest), reverse=True)
        if not self.stage_2 or not weakest_first or step - began >= walk:
            return DENSE
        return weakest_first[(step - began) * len(weakest_first) // walk]
