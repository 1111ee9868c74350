"""Choose the units of one module again, by what it reads and makes in the pruned model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from core.capture.moments import ModuleMoments
from core.capture.statistics import INPUTS, OUTPUTS, Statistics, moment_values, watched_modules
from core.criteria import CRITERIA
from core.criteria.scoring import score
from core.graph.records import Graph, Group
from core.plan.cost import cost, params_in
from core.plan.ranking import removal_order
from core.results.scores import ranked_by
from core.surgery.masks import Removed


@dataclass
class Rescoring:
    """How units are chosen again.

    Attributes:
        criterion: its name. One that reads gradients or attention maps cannot score a single module; then
            the plan's units go.
        seed, options: as in `core.criteria.scoring.score`.
        scope: the plan's; units of a group keep the order it gave them.
        multiple: channels make up for `short` in steps of this many.
        short: parameters that still have to go, because other heads took fewer keys and values with them.
    """

    criterion: str
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    multiple: int = 1
    short: float = 0.0
    scope: str = "local"

    @property
    def possible(self) -> bool:
        """Whether the criterion needs nothing but what a module reads and makes."""
        return self.criterion in CRITERIA.names() and self._needs <= {*INPUTS, *OUTPUTS}

    @property
    def _needs(self) -> set[str]:
        return set(CRITERIA[self.criterion].needs)

    def moments(self, model: nn.Module, graph: Graph, groups: list[Group]) -> ModuleMoments | None:
        """A collector of the criterion's statistics of these groups; None if it needs none."""
        if not groups or not self.possible or not self._needs:
            return None
        layer = _layer_of(graph, groups[0])
        readers, makers = watched_modules(model, layer, {group.kind for group in groups})
        inputs, outputs = self._needs & set(INPUTS), self._needs & set(OUTPUTS)
        return ModuleMoments(readers if inputs else {}, makers if outputs else {})

    def choose_all(
        self,
        model: nn.Module,
        graph: Graph,
        groups: list[Group],
        planned: Removed,
        moments: ModuleMoments | None,
    ) -> dict[str, tuple[int, ...]]:
        """`choose` for groups of one module: group id -> the units that go."""
        return {group.id: self.choose(model, graph, group, planned[group.id], moments) for group in groups}

    def choose(
        self,
        model: nn.Module,
        graph: Graph,
        group: Group,
        planned: tuple[int, ...],
        moments: ModuleMoments | None,
    ) -> tuple[int, ...]:
        """The units that go, sorted: as many as planned, or as many more or fewer as meet the target."""
        if not self.possible:
            return planned
        kinds, needs = (group.kind,), self._needs
        values = moment_values(moments, needs) if moments else {}
        statistics = Statistics(values, captured=frozenset(needs), kinds=kinds)
        scores = score(
            model, _layer_of(graph, group), [self.criterion], statistics,
            seed=self.seed, kinds=kinds, options=self.options, scopes=(self.scope,),
        )  # fmt: skip
        order = removal_order(group, scores[ranked_by(self.criterion, self.scope)])
        units = tuple(sorted(order[: self._count(graph, group, len(planned))].tolist()))
        self.short += cost(graph, {group.id: units}).params - cost(graph, {group.id: planned}).params
        return units

    def _count(self, graph: Graph, group: Group, planned: int) -> int:
        """How many go; channels make up for what is short, in whole steps, for which heads are too large."""
        if group.kind != "ffn_channel":
            return planned
        step = params_in(graph, [group]) / group.units * self.multiple
        count = planned + round(self.short / step) * self.multiple
        return count if 0 < count < group.units else planned


def _layer_of(graph: Graph, group: Group) -> Graph:
    """The graph with the groups of this group's layer only."""
    return replace(graph, groups=tuple(other for other in graph.groups if other.layer == group.layer))
