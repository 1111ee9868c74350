"""The stage that measures what every whole block is worth, where some are to be dropped."""

from __future__ import annotations

from core.capture.influence import block_influence
from core.errors import DataError
from core.evaluate.blocks import perplexities_without
from core.plan.dropping import droppable, summed
from core.results.blocks import BLOCKS, BlockWorth, read_blocks, write_blocks
from core.results.scores import Scores
from core.spec.depth import DROPPED, INFLUENCE, PERPLEXITY, drops_of
from core.stages.search import choosing_windows
from core.stages.work import State, Work, kept


def measure(state: State) -> None:
    """Measure the blocks of the kinds that are dropped, unless that is kept."""
    state.worth = worth_of(state.work, state, state.scores).worth
    state.work.recorder.artifact(BLOCKS)


def worth_of(work: Work, state: State, scores: Scores) -> BlockWorth:
    """What blocks are worth, from a run's folder or measured.

    Args:
        work: of the pruning run, or of a point of a sweep.

    Raises:
        DataError: a block of a kind that is dropped cannot be measured so; says what would do.
    """
    asked = work.spec.prune
    criterion = "" if asked.drop_by in (INFLUENCE, PERPLEXITY) else asked.method
    blocks = [block for kind in drops_of(asked.drop) for block in droppable(state.graph, kind)]
    earlier = kept(read_blocks, state.folder)
    alike = earlier is not None and (earlier.by, earlier.criterion) == (asked.drop_by, criterion)
    if earlier is not None and alike and all(block.id in earlier.worth for block in blocks):
        return earlier
    if criterion:
        made = BlockWorth(asked.drop_by, criterion, "", 0, summed(state.graph, scores[criterion]))
    else:
        read, text = choosing_windows(work, state)
        if asked.drop_by == INFLUENCE:
            count = work.recorder.counter("windows")
            worth = block_influence(state.loaded.model, state.graph, read, on_progress=count)
        else:
            count = work.recorder.counter("blocks")
            worth = perplexities_without(state.loaded.model, state.graph, blocks, read, on_progress=count)
        made = BlockWorth(asked.drop_by, "", text["name"], read.numel(), worth)
    missing = next((block for block in blocks if block.id not in made.worth), None)
    if missing is not None:
        why = (
            "what it adds to the stream is scaled on the way"
            if asked.drop_by == INFLUENCE
            else "its units were not scored; name their kinds under kinds"
        )
        raise DataError(
            f"drop_by {asked.drop_by} cannot measure {DROPPED[missing.kind]} such as {missing.id}: {why}. "
            f"Take drop_by {PERPLEXITY}, which measures every block."
        )
    write_blocks(state.folder, made)
    return made
