"""What can be wrong with a request: found before anything starts, or as soon as the model shows it."""

from __future__ import annotations

from typing import Any

from core.criteria.scoring import check_alone
from core.devices.picked import pick_device
from core.devices.spread import check_devices
from core.errors import DataError, SpecError
from core.graph.records import Graph
from core.methods import batches_of, criteria_of, method_of, processes_of
from core.models.again import graph_of
from core.models.load import Loaded, check_model, load_config, load_tokenizer
from core.models.texts import Text
from core.models.windows import sample_windows
from core.plan.dropping import dropped
from core.plan.records import check_plan
from core.recover.team import devices
from core.results.sweep import planned, run_of
from core.runs.company import company
from core.spec.checks import parse_layers
from core.spec.choices import SEARCHED
from core.spec.recommended import RECOMMENDED
from core.spec.run import RunSpec
from core.spec.texts import MIXED, NONE, SELF
from core.stages import recover
from core.stages.benchmark import check as check_benchmarks
from core.stages.early import (
    check_amount,
    check_early,
    check_lengths,
    check_map,
    check_method,
    check_rounds,
    config_only,
)
from core.stages.measure import text_windows
from core.stages.work import (
    calibration_of,
    evaluation_of,
    needs,
    reads_text,
    refits,
    searches,
    windows_of,
)


def check(spec: RunSpec) -> RunSpec:
    """Find what is wrong with a request before anything is started.

    Returns:
        The request with a name for all that was recommended.

    Raises:
        InputError, NotPrunableError: what is wrong.
    """
    check_early(spec)
    if spec.goal == "export":
        return spec
    spec = settle(spec)
    check_method(spec)
    check_rounds(spec)
    check_map(spec)
    if spec.cluster.here:  # the devices of a node are looked at there
        check_device(spec)
    bare = config_only(spec)  # nothing but the config is read
    config = load_config(spec.model.source, spec.model.trust_remote_code) if bare else check_model(spec.model)
    config = config.get_text_config()
    if spec.prunes and spec.prune.layers is not None:
        parse_layers(spec.prune.layers, config.num_hidden_layers)
    check_reach(spec)
    if spec.goal in ("prune", "recover"):
        recover.check(spec, config)
    if spec.goal == "prune" and spec.prune.without_dependency:
        check_ablation(spec)
    if spec.goal in ("explore", "prune", "sweep"):
        check_calibration(spec)
    check_lengths(spec, config)
    for name in spec.evaluate.texts:
        evaluation_of(spec, name)
    check_tokens(spec)
    if spec.goal == "sweep":
        for point in planned(spec):
            run_of(spec, point)  # its parts are checked as they are made
    if spec.goal in ("prune", "recover", "evaluate"):
        check_benchmarks(spec.evaluate)
    return spec


#: A share that the groups of any model can give; of more, whether they can is counted at launch.
SURELY_THERE = 0.5


def settle(spec: RunSpec) -> RunSpec:
    """A request with a name for all that is recommended; the model is traced only where it matters.

    Raises:
        InputError: there is no such model; NotPrunableError: it cannot be traced.
    """
    if RECOMMENDED not in _left_open(spec):
        return spec.settled()
    graph, kinds = graph_of(spec.model, config_only=True), spec.prune.kinds
    return spec.settled(unseen=graph.unseen(*kinds))


def _left_open(spec: RunSpec) -> tuple[str, ...]:
    """What ranks in a run, where that depends on the model."""
    if spec.goal == "sweep":
        return spec.sweep.methods
    return (spec.prune.method,) if spec.goal == "prune" and not spec.prune.without_dependency else ()


def check_reach(spec: RunSpec) -> None:
    """Whether units chosen by hand are there, and enough for budgets, rounds and blocks of a sweep.

    Raises:
        NotPrunableError: they are not. ArtifactError: the files of an earlier cut are damaged.
    """
    asked = spec.prune
    counted = bool(asked.target or asked.drop or asked.rounds > 1 or asked.sparsity > SURELY_THERE)
    swept = [drop for drop in spec.sweep.drops if drop] if spec.goal == "sweep" else []
    if not (asked.units or swept or (spec.prunes and counted)):
        return
    graph = graph_of(spec.model, config_only=True)
    check_plan(graph, asked.units)
    for drop in swept:
        dropped(graph, drop, None, asked.layers)
    if counted:
        check_amount(spec, graph)


def check_device(spec: RunSpec) -> None:
    """Whether the devices that are named are here, one and an even share for all that train together.

    Raises:
        SpecError, ModelError: they are not.
    """
    check_devices(spec.model.max_memory)
    ours, batches = company(), batches_of(spec)
    count, here = (ours.size, ours.local_size) if ours else (processes_of(spec),) * 2
    if batches and count == 1 and spec.model.lent:
        raise SpecError(
            "Weights that rest elsewhere are trained around by several processes, and there is one; resume "
            "it with torchrun --nproc-per-node 2 -m core runs resume."
        )
    if not batches or count == 1:
        return
    if spec.goal == "prune" and spec.prune.without_dependency:
        raise SpecError(
            f"without_dependency trains in one process, got {count}: no file says what others would train; "
            "start one, or leave out the training."
        )
    if uneven := [batch for batch in batches if batch % count]:
        raise SpecError(
            f"{count} processes train together, and cannot share a batch of {uneven[0]} evenly; write "
            f"batch={-(-uneven[0] // count) * count}, or start fewer."
        )
    devices(pick_device(spec.model.device), here)


def check_ablation(spec: RunSpec) -> None:
    """Raises SpecError if the method does not rank units, or cannot rank those of one matrix by itself."""
    asked = spec.prune
    if method_of(spec) or asked.reconstruct != "none":
        raise SpecError(
            "without_dependency only cuts: it takes a method that ranks units and reconstruct none, got "
            f"{asked.method} and {asked.reconstruct}."
        )
    check_alone(asked.method)


def check_calibration(spec: RunSpec) -> None:
    """Raises DataError if there is no such text, or none where something reads it."""
    if spec.calibration.name == NONE:
        reads = [name for name in criteria_of(spec) if needs([name])]
        reads += [spec.prune.method] if method_of(spec) else []
        reads += [f"reconstruct {how}" for how in sorted(refits(spec))]
        reads += [f"scope {SEARCHED}"] if searches(spec) else []
        reads += ["similarity"] if spec.goal == "explore" and "similarity" in spec.explore.analyses else []
        if reads:
            raise DataError(
                f"{', '.join(reads)} needs calibration text, got '{NONE}'; give '{MIXED}', a file or "
                f"'{SELF}' (the model writes it), or take a criterion without data: second_moment_data_free."
            )
    if spec.calibration.name not in (SELF, NONE):
        calibration_of(spec)


def check_tokens(spec: RunSpec, tokenizer: Any = None) -> None:
    """Raises DataError where a text has fewer tokens than the run reads, and says how many it has.

    Args:
        tokenizer: the model's; None to load it, which is done only where a text is short for what is asked.
    """
    if config_only(spec):
        return
    asked, data = spec.evaluate, spec.calibration

    def own() -> Any:
        return tokenizer or load_tokenizer(spec.model.source, spec.model.trust_remote_code)

    scanned = spec.explore.sensitivity_tokens if spec.goal == "explore" else None
    for name in asked.texts:
        wanted = asked.tokens if asked.tokens and name == asked.text else asked.window_length
        if _short(evaluation_of(spec, name), wanted):
            text_windows(own(), spec, name, scanned)
    reads = spec.goal == "explore" or (spec.prunes and reads_text(spec))
    if reads and data.name not in (SELF, NONE):
        text = calibration_of(spec)
        for samples, of in _windows(spec):
            if _short(text, samples * data.length):
                try:
                    sample_windows(own(), text, samples=samples, length=data.length, seed=spec.seed)
                except DataError as error:
                    raise DataError(f"{of}{error}") from error
    if spec.goal in ("prune", "recover") and spec.recover.method != "none":
        recover.check_enough(spec, own)


def _windows(spec: RunSpec) -> list[tuple[int, str]]:
    """How many windows of the calibration text are read at once, and how a refusal of so many begins."""
    read, samples = [(windows_of(spec), "")], spec.prune.recovery_samples
    if "pre_pruning" in refits(spec):
        read.append((samples, f"pre_pruning takes {samples:,} recovery_samples. "))
    return read


def _short(text: Text, tokens: int) -> bool:
    """Whether a text may have fewer tokens: none stands for as many characters as this in the mean."""
    return len(text.text) < 16 * tokens


def check_graph(spec: RunSpec, loaded: Loaded, graph: Graph) -> None:
    """Whether the loaded model has what is to be cut and trained. Raises InputError or NotPrunableError."""
    if spec.prune.layers is not None:
        parse_layers(spec.prune.layers, len(graph.layer_modules))
    check_plan(graph, spec.prune.units)
    # The plan itself would find that so much cannot go only when the dense model was measured, or trained.
    if not spec.prune.units and not spec.prune.without_dependency:
        check_amount(spec, graph)
    recover.check_targets(loaded, graph, spec.recover)
