"""Pre-pruning against Algorithms 2 to 4 written out in float64 from the paper, on a grouped-query model."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from core.graph.discover import discover
from core.plan.allocation import allocate
from core.plan.records import PruningPlan
from core.recover.reconstruct import reconstruct
from core.recover.rescoring import Rescoring
from core.surgery.masks import masked
from tests.graph.families import build, graph_of
from tests.handmade import ids, logits, tiny

Array = NDArray[np.float64]
HEADS, WIDTH, SHARED = 4, 8, 2
#: How many units of each kind go in every layer.
GONE = {"query_head": 1, "ffn_channel": 7}


@dataclass
class Written:
    """The paper's procedure on a Llama, with nothing but numpy: W are (inputs, outputs) as in Y = X W.

    Attributes:
        weights: "layer.name" -> W; embedding, norms, head: the rest of the model.
        removed: group id -> the units that go.
    """

    weights: dict[str, Array]
    norms: dict[str, Array]
    embedding: Array
    base: float
    eps: float
    removed: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: PreTrainedModel) -> Written:
        state = {name: value.detach().double().numpy() for name, value in model.named_parameters()}
        short = {name.removeprefix("model.layers.").removesuffix(".weight"): v for name, v in state.items()}
        weights = {name.replace("self_attn.", "").replace("mlp.", ""): v.T for name, v in short.items()}
        config = model.config
        return cls(
            {name: value for name, value in weights.items() if name.endswith("_proj")},
            {name: value for name, value in short.items() if name.endswith("layernorm")},
            state["model.embed_tokens.weight"],
            config.rope_parameters["rope_theta"],
            config.rms_norm_eps,
        )

    def normed(self, h: Array, name: str) -> Array:
        return h / np.sqrt((h**2).mean(axis=-1, keepdims=True) + self.eps) * self.norms[name]

    def turned(self, x: Array) -> Array:
        """Rotary positions, (windows, tokens, heads, width)."""
        angles = np.outer(np.arange(x.shape[1]), self.base ** -(np.arange(0, WIDTH, 2) / WIDTH))
        cos, sin = (np.concatenate([f(angles)] * 2, axis=1)[:, None] for f in (np.cos, np.sin))
        half = WIDTH // 2
        return x * cos + np.concatenate([-x[..., half:], x[..., :half]], axis=-1) * sin

    def mixed(self, q: Array, k: Array, v: Array) -> Array:
        """What the output projection reads, (windows, tokens, heads * width)."""
        q, k, v = (x.reshape(*x.shape[:2], -1, WIDTH) for x in (q, k, v))
        q, k = self.turned(q), self.turned(k)
        k, v = (x.repeat(SHARED, axis=2) for x in (k, v))
        score = np.einsum("nqhd,nkhd->nhqk", q, k) / np.sqrt(WIDTH)
        score = np.where(np.tri(score.shape[-1], dtype=bool), score, -np.inf)
        p = np.exp(score - score.max(axis=-1, keepdims=True))
        return np.einsum("nhqk,nkhd->nqhd", p / p.sum(axis=-1, keepdims=True), v).reshape(*q.shape[:2], -1)

    def post_process(self, y: dict[str, Array]) -> Array:
        """X2 from what level 1 returned."""
        if "gate_proj" in y:
            return y["up_proj"] * y["gate_proj"] / (1 + np.exp(-y["gate_proj"]))
        return self.mixed(y["q_proj"], y["k_proj"], y["v_proj"])

    def level_1(self, x: Array, layer: int, names: tuple[str, ...]) -> dict[str, Array]:
        return {name: x @ self.weights[f"{layer}.{name}"] for name in names}

    def prune(self, fit: Array, score: Array, layers: int) -> None:
        """Section 3.3: module after module, reconstructed by Algorithms 3 and 4, scored by Eq. 3, cut.

        Args:
            fit, score: token ids of the recovery and of the calibration windows, (windows, tokens).
        """
        dense_h, h, scored = (self.embedding[tokens] for tokens in (fit, fit, score))
        for layer in range(layers):
            for kind, names, last, norm in (
                ("query_head", ("q_proj", "k_proj", "v_proj"), "o_proj", "input_layernorm"),
                ("ffn_channel", ("gate_proj", "up_proj"), "down_proj", "post_attention_layernorm"),
            ):
                norm = f"{layer}.{norm}"
                # the dense module, on what it reads in the dense model
                y = self.level_1(self.normed(dense_h, norm), layer, names)
                y2 = self.post_process(y) @ self.weights[f"{layer}.{last}"]
                # Algorithm 3 or 4; of the first module the pruned model's inputs are the dense one's
                if self.removed:
                    x = self.normed(h, norm)
                    for name in names:
                        self.weights[f"{layer}.{name}"] = best(x, y[name])
                    x2 = self.post_process(self.level_1(x, layer, names))
                    self.weights[f"{layer}.{last}"] = best(x2, y2)
                # Eq. 3 on the calibration windows
                x = self.normed(scored, norm)
                made = self.level_1(x, layer, names)
                worth = self.worth(kind, x, made, layer, last)
                units = np.argsort(worth)[: GONE[kind]]
                self.removed[f"L{layer:02d}.{kind}"] = tuple(sorted(units.tolist()))
                dense_h = dense_h + y2
                h = h + self.cut(kind, self.normed(h, norm), layer, names, last, units)
                scored = scored + self.cut(kind, x, layer, names, last, units)

    def worth(self, kind: str, x: Array, made: dict[str, Array], layer: int, last: str) -> Array:
        """M_i = ||B_i||^2 A_i' S A_i, S = E[x x'] (Eq. 3, Appendix 7)."""
        read = (self.weights[f"{layer}.{last}"] ** 2).sum(axis=1)
        if kind == "query_head":  # S of the attention-mixed input: A_i' S A_i is E[(A_i' x^)^2]
            energy = (self.post_process(made) ** 2).mean(axis=(0, 1))
            return (read * energy).reshape(HEADS, WIDTH).sum(axis=1)
        flat = x.reshape(-1, x.shape[-1])
        sigma = flat.T @ flat / len(flat)
        up, gate = (self.weights[f"{layer}.{name}"] for name in ("up_proj", "gate_proj"))
        return 0.5 * (read * ((sigma @ up) * up).sum(axis=0)) * (read * ((sigma @ gate) * gate).sum(axis=0))

    def cut(self, kind: str, x: Array, layer: int, names: tuple[str, ...], last: str, units: Array) -> Array:
        """What the module returns without these units."""
        x2 = self.post_process(self.level_1(x, layer, names))
        width = WIDTH if kind == "query_head" else 1
        lost = (units[:, None] * width + np.arange(width)).ravel()
        return np.delete(x2, lost, axis=-1) @ np.delete(self.weights[f"{layer}.{last}"], lost, axis=0)


def best(x: Array, y: Array) -> Array:
    """(X' X)^-1 X' Y over all tokens."""
    x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    return np.linalg.inv(x.T @ x) @ x.T @ y


def test_pre_pruning_is_algorithms_2_to_4() -> None:
    model = tiny().double()
    graph = discover(model, name="tiny")
    fit, score = ids(model, batch=12, length=20, seed=1), ids(model, batch=3, length=20, seed=2)
    written = Written.of(model)
    written.prune(fit.numpy(), score.numpy(), layers=2)
    removed = {
        f"L{layer:02d}.{kind}": tuple(range(count)) for layer in (0, 1) for kind, count in GONE.items()
    }
    plan = PruningPlan(removed=removed, method="second_moment")
    record = reconstruct(
        model, graph, plan, score, how="pre_pruning", rescoring=Rescoring("second_moment"), recovery=fit
    )
    assert record.removed == written.removed != removed
    fitted = Written.of(model).weights
    for name, expected in written.weights.items():
        assert np.abs(fitted[name] - expected).max() < 1e-5 * np.abs(expected).max(), name
    assert not [note for note in record.notes if "nearest" in note]


def test_only_modules_that_lose_units_are_reconstructed_and_none_gets_a_bias() -> None:
    model, graph = build("llama"), graph_of("llama")
    before = copy.deepcopy(model.state_dict())
    rng = np.random.default_rng(0)
    scores = {group.id: rng.random(group.units) for group in graph.groups}
    plan = allocate(graph, scores, sparsity=0.3, kinds=("ffn_channel",), layers="1:2", method="l2")
    tokens = ids(model, batch=16, length=24)
    record = reconstruct(model, graph, plan, tokens, how="pre_pruning")
    assert record.changed == set(), "the first module of all is its own reconstruction"
    plan = allocate(graph, scores, sparsity=0.3, kinds=("ffn_channel",), method="l2")
    record = reconstruct(model, graph, plan, tokens, how="pre_pruning")
    layers = {".".join(name.split(".")[2:]) for name in record.changed}
    assert layers == {f"1.mlp.{name}_proj.weight" for name in ("gate", "up", "down")}
    assert list(model.state_dict()) == list(before)
    untouched = {name for name in before if name not in record.changed}
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in untouched)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "phi3"])
def test_modules_return_what_the_dense_ones_did_as_nearly_as_can_be(family: str) -> None:
    """With biases, with one matrix for queries, keys and values, with attention beside the feed-forward."""
    model, graph = build(family), graph_of(family)
    tokens = ids(model, batch=24, length=24, seed=3)
    scores = {group.id: np.arange(group.units, dtype=float) for group in graph.groups}
    plan = allocate(graph, scores, sparsity=0.3, method="l2")
    small = copy.deepcopy(model)
    record = reconstruct(small, graph, plan, tokens, how="pre_pruning")
    assert record.fits and all(fit["error_after"] <= fit["error_before"] for fit in record.fits)
    biases = [name for name, value in model.named_parameters() if name.endswith("bias")]
    assert all(torch.equal(model.get_parameter(name), small.get_parameter(name)) for name in biases)
    with masked(model, graph, plan.removed):
        plain = logits(model, tokens)
    with masked(small, graph, record.removed):
        refitted = logits(small, tokens)
    assert bool(torch.isfinite(refitted).all()) and not torch.allclose(plain, refitted, atol=1e-3)


def test_too_few_tokens_keep_the_weights_nearest_to_the_present_ones() -> None:
    model, graph = build("llama"), graph_of("llama")
    scores = {group.id: np.arange(group.units, dtype=float) for group in graph.groups}
    plan = allocate(graph, scores, sparsity=0.3, method="l2")
    record = reconstruct(model, graph, plan, ids(model, batch=1, length=8), how="pre_pruning")
    assert any("nearest to the present weights" in note for note in record.notes)
    assert all(bool(torch.isfinite(value).all()) for value in model.parameters())
