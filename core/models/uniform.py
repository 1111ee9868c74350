"""A config for the pruned model itself, if its layers are all alike.

With it the saved folder is an ordinary model, which any tool reads. A trial decides whether it is one:
the same weights in a model built from the reduced config must give the same logits.
"""

from __future__ import annotations

import copy

from transformers import PretrainedConfig, PreTrainedModel

from core.errors import PruneError
from core.graph.places import tied_names
from core.graph.records import Graph
from core.models.empty import empty_model, fill
from core.plan.heads import heads_left
from core.plan.records import PruningPlan, implied
from core.surgery.agreement import check, refer


def uniform_config(model: PreTrainedModel, graph: Graph, plan: PruningPlan) -> PretrainedConfig | None:
    """The reduced config, or None if the layers differ or no stock model computes the same."""
    changes = _changes(model.config.get_text_config(), graph, plan)
    if changes is None or model.device.type == "meta":
        return None
    config = copy.deepcopy(model.config)
    try:
        for name, value in changes.items():
            setattr(config.get_text_config(), name, value)
        twin = empty_model(config, type(model))
        aliases = tied_names(model)
        fill(twin, {name: value for name, value in model.state_dict().items() if name not in aliases})
        twin.to(model.device)  # type: ignore[arg-type]
        when = "in a stock model"
        check(twin, graph, refer(model, graph, when=when), when=when)
    except (PruneError, ValueError, TypeError, RuntimeError, AttributeError):
        return None  # this family derives one size from another; the plan is replayed instead
    return config


def _changes(config: PretrainedConfig, graph: Graph, plan: PruningPlan) -> dict[str, int] | None:
    """Config fields and their new sizes, or None where one number cannot say it."""
    full = implied(graph, plan.removed)
    if full.get("residual_channel"):
        return None  # norms were rescaled, which a config cannot say
    heads, key_values, inner = set(), set(), set()
    for attention in graph.attentions:
        survivors = heads_left(graph, attention, full)
        heads.add(len(survivors.query) if survivors else attention.heads)
        key_values.add(len(survivors.key_value) if survivors else attention.kv_heads)
        if survivors is not None and not survivors.uniform:
            return None
    for group in graph.of_kind("ffn_channel"):
        inner.add((group.units, group.units - len(full.get(group.id, ()))))
    if max(len(heads), len(key_values), len(inner)) > 1 or not graph.attentions:
        return None
    changes = {"num_attention_heads": heads.pop(), "num_key_value_heads": key_values.pop()}
    changes = {name: value for name, value in changes.items() if hasattr(config, name)}
    # Families without such a field may still read one; the trial says whether they do.
    changes["head_dim"] = graph.attentions[0].head_dim
    for dense, now in inner:
        changes |= {name: now for name in _inner_names(config, dense)}
    return changes


def _inner_names(config: PretrainedConfig, dense: int) -> list[str]:
    """Config fields with the FFN's width, which families call by several names."""
    values = config.to_dict()
    return [
        name
        for name, value in values.items()
        if value == dense and any(p in name for p in ("inner", "ffn", "inter"))
    ]
