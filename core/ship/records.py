"""What is to be shipped, whether a format can hold it, and what a writer is given. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from core.errors import ArtifactError
from core.files import read_record
from core.graph.records import Attention, Graph
from core.plan.blocks import blocks_gone, without_blocks
from core.plan.heads import Heads, heads_left
from core.plan.records import PruningPlan, implied
from core.runs.artifacts import BASE_CONFIG, GROUPS, PLAN, read_graph, read_plan
from core.spec.export import ExportSpec


@dataclass(frozen=True)
class Layer:
    """What a plan leaves of one decoder layer.

    Attributes:
        attention: as the dense model has it, or None; heads: those that stay, all of them where none goes.
        ffn: the widths left of its FFNs: one, or one for each expert; none where that is gone.
    """

    attention: Attention | None
    heads: Heads | None
    ffn: tuple[int, ...]


@dataclass(frozen=True)
class Subject:
    """A pruned model on paper, whether or not it was cut yet.

    Attributes:
        graph: of the dense model; plan: what goes of it.
        config: the dense model's `config.json`.
    """

    graph: Graph
    plan: PruningPlan
    config: Mapping[str, Any]

    @property
    def family(self) -> str:
        """The architecture as transformers calls it, e.g. `llama`."""
        return str(self.config.get("model_type") or self.graph.family)

    @cached_property
    def gone(self) -> dict[str, tuple[int, ...]]:
        """Group id -> units that go, with those that follow."""
        return implied(self.graph, self.plan.removed)

    @cached_property
    def left(self) -> Graph:
        """The graph without the blocks that go whole."""
        return without_blocks(self.graph, self.plan.removed)[0]

    @property
    def gaps(self) -> tuple[int, ...]:
        """The layers that have lost a whole block, but not everything."""
        gone = blocks_gone(self.graph, self.plan.removed)
        layers = {group.layer for group in gone if group.kind != "layer"}
        return tuple(sorted(layer for layer in layers if layer is not None))

    @property
    def shorter(self) -> bool:
        """Whether whole layers go."""
        return any(group.kind == "layer" for group in blocks_gone(self.graph, self.plan.removed))

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """What is left of every decoder layer, in order."""
        attentions = {attention.layer: attention for attention in self.left.attentions}
        return tuple(
            self._layer(number, attentions.get(number)) for number in range(len(self.graph.layer_modules))
        )

    @property
    def hidden(self) -> int:
        """Hidden channels that stay."""
        gone = (len(self.gone.get(group.id, ())) for group in self.graph.of_kind("residual_channel"))
        return self.dense_hidden - sum(gone)

    @property
    def dense_hidden(self) -> int:
        """Hidden channels of the dense model."""
        for group in self.graph.of_kind("residual_channel"):
            return group.units
        return int(self.config["hidden_size"])

    @property
    def dense_width(self) -> int:
        """Channels of the dense model's widest FFN."""
        return max((group.units for group in self.graph.of_kind("ffn_channel")), default=0)

    @property
    def tokens(self) -> int | None:
        """Tokens of the embedding, where the graph shows it: a config leaves out what is usual."""
        members = [each for group in self.graph.of_kind("residual_channel") for each in group.members]
        embeddings = (each for each in members if each.role == "embedding")
        sizes = (self.graph.parameters[each.parameter].shape[1 - each.dim] for each in embeddings)
        return next(sizes, None)

    @property
    def narrower(self) -> bool:
        """Whether hidden channels go, so that norms are rescaled."""
        return any(self.gone.get(group.id) for group in self.graph.of_kind("residual_channel"))

    @property
    def widths(self) -> set[int]:
        """All widths that FFNs are left with."""
        return {width for layer in self.layers for width in layer.ffn}

    def _layer(self, number: int, attention: Attention | None) -> Layer:
        groups = [group for group in self.left.of_kind("ffn_channel") if group.layer == number]
        widths = tuple(group.units - len(self.gone.get(group.id, ())) for group in groups)
        return Layer(attention, self._heads(attention) if attention else None, widths)

    def _heads(self, attention: Attention) -> Heads:
        left = heads_left(self.left, attention, self.gone)
        if left is not None:
            return left
        query, key_value = range(attention.heads), range(attention.kv_heads)
        each = attention.heads // max(attention.kv_heads, 1)
        return Heads([*query], [*key_value], [head // each for head in query])


def subject_of(model: Path) -> Subject:
    """What was saved in a folder, on paper. Raises ArtifactError."""
    lacking = next((name for name in (PLAN, GROUPS) if not (model / name).is_file()), None)
    if lacking is not None:
        raise ArtifactError(f"{model} lacks {lacking}, which says what was cut; run the pruning again.")
    path = model / (BASE_CONFIG if (model / BASE_CONFIG).is_file() else "config.json")
    return Subject(read_graph(model), read_plan(model), read_record(path, dict[str, Any], "run it again"))


@dataclass(frozen=True)
class Verdict:
    """Whether a format holds a model, and why: one sentence for people, with the price if there is one."""

    possible: bool
    reason: str


@dataclass(frozen=True)
class Parcel:
    """What a writer is given.

    Attributes:
        subject: the model on paper; model: the folder it was saved in.
        out: an empty folder to fill, which is moved into place afterwards.
        options: what was asked for; trust_remote_code: whether code that came with the model may run.
        say: tells people a sentence; progress: how far it is (done, total, unit), raises StopRequested.
    """

    subject: Subject
    model: Path
    out: Path
    options: ExportSpec
    trust_remote_code: bool
    say: Callable[[str], None]
    progress: Callable[[int, int, str], None]


@dataclass(frozen=True)
class Written:
    """What a writer says of its files: notes for people."""

    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Route:
    """A way to run a pruned model.

    Attributes:
        name: of the format, e.g. `gguf`; title: of what runs it.
        verdict: whether it holds a model, from paper alone.
        use: how its files in a folder are run, line by line to copy.
        write: writes the files, or None where there is nothing to write: what is said is the verdict.
        ready: raises InputError for what is wrong with a request beside the shapes: it is given the model on
            paper, its folder and what was asked for.
    """

    name: str
    title: str
    verdict: Callable[[Subject], Verdict]
    use: Callable[[Subject, Path, ExportSpec], tuple[str, ...]]
    write: Callable[[Parcel], Written] | None = None
    ready: Callable[[Subject, Path, ExportSpec], None] | None = None
