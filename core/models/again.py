"""Cut a model that is in memory, be it dense or the result of an earlier cut.

A cut block does not say any more what its first one looked like. So a second plan is not carried out on it:
both plans are carried out, as one, on an empty model of the first base, which is then given what is left of
the weights. That is what loading does with the saved folder, so the model at hand is the one that is saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor
from transformers import PreTrainedModel

from core.devices.lending import stand_like
from core.errors import NotPrunableError
from core.graph.discover import bare_model, discover
from core.graph.places import tied_names
from core.graph.records import Graph
from core.models.empty import empty_model, fill
from core.models.load import Loaded, load, load_config
from core.models.sources import groups_left, resolve
from core.plan.composed import composed, what_is_left
from core.plan.records import PruningPlan, check_plan, implied
from core.spec.model import ModelSpec
from core.surgery.agreement import OnChecked, check, refer
from core.surgery.masks import masked
from core.surgery.operate import add_biases, cut, operate, scaled_norms, slice_parameters
from core.surgery.trial import heads_tried


def graph_of(spec: ModelSpec, config_only: bool) -> Graph:
    """Find the coupled groups of a model, or of its config, which needs no weights.

    Raises:
        ModelError: there is no such model. ArtifactError: the plan of a pruned one is damaged.
        NotPrunableError: the forward pass cannot be recorded.
    """
    source = resolve(spec.source)
    if source.kind == "pruned":
        return groups_left(source)
    if not config_only:
        return groups_of(load(**vars(spec)))
    model = bare_model(load_config(spec.source, spec.trust_remote_code), source.name)
    return heads_tried(model, discover(model, name=source.name, config_only=True))


def groups_of(loaded: Loaded) -> Graph:
    """The coupled groups of a model as it is: traced, or what its plan has left of those of its first base.

    Raises:
        NotPrunableError: the forward pass cannot be recorded.
    """
    if loaded.plan is not None and loaded.graph is not None:
        return what_is_left(loaded.graph, loaded.plan, model=loaded.name)
    return heads_tried(loaded.model, discover(loaded.model, name=loaded.name))


def cut_loaded(
    loaded: Loaded,
    graph: Graph,
    plan: PruningPlan,
    *,
    on_checked: OnChecked | None = None,
    checked: bool = True,
) -> Loaded:
    """Remove the units of a plan for good. The model that was given is of no use afterwards.

    Args:
        graph: of the model as it is, which the plan is about.
        on_checked: told how close each layer came to what it gave under masks.
        checked: False for a model whose answers nobody will read; of one that was cut before they are.

    Returns:
        The smaller model; its `plan` and `graph` are about the first base, earlier cuts included.

    Raises:
        NotPrunableError: the plan does not fit, or the sliced model does not do what the masked one does.
    """
    if loaded.plan is None or loaded.graph is None:
        model = operate(
            loaded.model, graph, plan.removed, plan.biases, on_checked=on_checked, checked=checked
        )
        return replace(loaded, model=model, plan=plan, graph=graph)
    whole = composed(loaded.graph, loaded.plan, plan)
    model = _cut_again(loaded.model, graph, plan, loaded.graph, whole, on_checked)
    return replace(loaded, model=model, config=model.config, plan=whole)


def _cut_again(
    model: PreTrainedModel,
    graph: Graph,
    plan: PruningPlan,
    base: Graph,
    whole: PruningPlan,
    on_checked: OnChecked | None,
) -> PreTrainedModel:
    """Carry out `plan` on a cut model: `whole` on an empty model of the first base, with what is left."""
    check_plan(graph, plan.removed)
    add_biases(model, plan.biases)
    full = implied(graph, dict(plan.removed))
    with masked(model, graph, plan.removed):
        scaled = scaled_norms(model, graph, full)
        reference = refer(model, graph, when="with these units masked", rescaled=scaled)
    slice_parameters(model, graph, plan)
    small = _replayed(model, base, whole)
    check(small, graph, reference, when="with these units cut", full=full, on_checked=on_checked)
    return small


def cut_before(loaded: Loaded, graph: Graph, plan: PruningPlan, tensors: Mapping[str, Tensor]) -> Loaded:
    """A model as a cut left it, and what came after the cut, whose tensors were kept.

    Args:
        loaded: what the plan is about, which is of no use afterwards; graph: its coupled groups.
    """
    model, base, whole = loaded.model, graph, plan
    if loaded.plan is not None and loaded.graph is not None:
        base, whole = loaded.graph, composed(loaded.graph, loaded.plan, plan)
    small = cut(empty_model(model.config, type(model)), base, whole)
    types = {name: value.dtype for name, value in model.state_dict().items()}
    fill(small, {name: value.to(types.get(name, model.dtype)) for name, value in tensors.items()})
    small = _settled(small, model)
    return replace(loaded, model=small, config=small.config, plan=whole, graph=base)


def _replayed(model: PreTrainedModel, base: Graph, whole: PruningPlan) -> PreTrainedModel:
    """An empty model of the first base under the whole plan, with the weights of a model that was sliced."""
    small = cut(empty_model(model.config, type(model)), base, whole)
    shapes = {name: parameter.shape for name, parameter in small.named_parameters()}
    other = _others(model, shapes)
    if other:
        raise NotPrunableError(
            f"What is left of {other} is not what both plans leave of the first base: the files of this "
            "model do not belong together. Prune the dense model once, with the larger plan."
        )
    aliases = tied_names(model)
    fill(small, {name: value for name, value in model.state_dict().items() if name not in aliases})
    return _settled(small, model)


def _settled(small: PreTrainedModel, model: PreTrainedModel) -> PreTrainedModel:
    """A filled model where and as another one stands."""
    stand_like(small, model)
    small.config.dtype = model.config.dtype
    small.generation_config = model.generation_config
    return small.eval()


def _others(model: PreTrainedModel, shapes: Mapping[str, object]) -> str:
    """The first parameter whose shape is another, or an empty string."""
    own = {name: parameter.shape for name, parameter in model.named_parameters()}
    return next((name for name in {**own, **shapes} if own.get(name) != shapes.get(name)), "")
