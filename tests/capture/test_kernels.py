"""The compiled loops give what torch gives, and torch what the formulas say."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from core.capture import fused, kernels
from core.capture.kernels import distances, distances_by_torch, products, products_by_torch


def attention(heads: int = 5, queries: int = 33) -> Tensor:
    """(2, heads, queries, queries), later keys unseen."""
    torch.manual_seed(heads)
    future = torch.ones(queries, queries, dtype=torch.bool).triu(1)
    return (torch.randn(2, heads, queries, queries) * 3).masked_fill(future, -torch.inf).softmax(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_distances_are_those_of_torch(
    dtype: torch.dtype, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_WORTH_A_THREAD", 1)
    p, counted = attention().to(dtype), torch.rand(2, 33) > 0.3
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = distances(p, counted)
    finally:
        torch.set_num_threads(before)
    assert torch.allclose(got, distances_by_torch(p, counted), atol=1e-5 * int(counted.sum()))
    assert (got.tril() == 0).all() and (got.triu(1)[0, 1:] > 0).all()


def test_attention_that_is_laid_out_otherwise_is_read_right() -> None:
    p, counted = attention(), torch.ones(2, 33, dtype=torch.bool)
    turned = p.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)
    assert not turned.is_contiguous() and torch.equal(distances(turned, counted), distances(p, counted))


def test_what_is_no_number_shows() -> None:
    p, counted = attention(), torch.ones(2, 33, dtype=torch.bool)
    p[0, 1, 7] = torch.nan
    got = distances(p, counted)
    assert got[0, 1].isnan() and got[1, 2].isnan() and got[0, 2].isfinite()
    counted[0, 7] = False  # and does not where it does not count
    assert distances(p, counted).isfinite().all()


def alike(p: Tensor, counted: Tensor) -> bool:
    """Whether the kernel says what the loop does, to 1e-5 a position, and that equal heads are equal."""
    got = fused.distances(p, counted)
    near = torch.allclose(got, distances(p, counted), atol=1e-5 * int(counted.sum()))
    return near and float(got[0, 1]) == 0 and bool((got.tril() == 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_kernel_computes_what_the_loop_does(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here without a compiler; the slow test has one."""
    monkeypatch.setattr(fused, "compiled", lambda: fused.entropies)
    monkeypatch.setattr(fused, "_ENTROPIES", 15 * 7)  # seven positions at a time
    p, counted = attention().to(dtype), torch.rand(2, 33) > 0.3
    p[:, 1] = p[:, 0]
    assert alike(p, counted)
    p[0, 2, 7] = torch.nan
    counted[0, 7] = False
    assert fused.distances(p, counted).isfinite().all()


@pytest.mark.slow
def test_the_kernel_is_compiled_once_for_all_sizes() -> None:
    compiled = fused.compiled()
    for heads, queries in ((5, 33), (9, 40), (9, 64), (4, 65)):
        p, counted = attention(heads, queries), torch.rand(2, queries) > 0.3
        p[:, 1] = p[:, 0]
        assert alike(p, counted) and alike(p[:1], counted[:1])
    assert counters["stats"]["unique_graphs"] == 1 and compiled is fused.compiled()


def test_where_nothing_compiles_that_is_said_once_and_it_goes_in_passes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Tensor) -> Tensor:
        raise RuntimeError("Cannot find a working triton installation.\nIt was looked for.")

    monkeypatch.setattr(fused, "compiled", lambda: broken)
    monkeypatch.setattr(kernels, "_unable", [])
    monkeypatch.setattr(kernels, "_WORTH_COMPILING", 1)
    card = SimpleNamespace(type="cuda")
    p, counted = attention(), torch.ones(2, 33, dtype=torch.bool)

    class OnACard(Tensor):
        device = card  # type: ignore[assignment]

    monkeypatch.setattr(fused, "distances", lambda p, counted: fused._run(p, counted, counted))
    monkeypatch.setattr(kernels, "distances_by_torch", lambda p, counted: "in passes")
    shown = p.as_subclass(OnACard)
    assert [distances(shown, counted), distances(shown, counted)] == ["in passes"] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "Head distances are computed in passes: no kernel of them compiles "
        "(RuntimeError: Cannot find a working triton installation.)"
    ]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_the_formulas(axis: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    w, g = torch.randn(37, 50).to(dtype), torch.randn(37, 50).to(dtype)
    a = w.double() * g.double()
    terms = a, a.abs(), a.square(), (a - a.square() / 2).abs()
    expected = torch.stack([term.sum(dim=1 - axis) for term in terms]).float()
    for found in (products(w, g, axis), products_by_torch(w, g, axis), products(w.T.contiguous().T, g, axis)):
        assert found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("way", [products, products_by_torch])
def test_products_are_added_to_what_is_kept(
    way: Callable[..., Tensor], axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_PRODUCTS_WORTH_A_THREAD", 500)
    monkeypatch.setattr(kernels, "_LARGE", 500)  # in pieces of ten rows
    torch.manual_seed(0)
    w, g = torch.randn(37, 50), torch.randn(37, 50)
    signed, mixed = torch.ones(37, 50), torch.ones(37, 50)
    expected = way(w, g, axis)
    assert torch.allclose(way(w, g, axis, signed, mixed), expected)
    assert torch.allclose(signed, 1 + w * g, atol=1e-6)
    assert torch.allclose(mixed, 1 + w * g - (w * g) ** 2 / 2, atol=1e-5)
    assert torch.allclose(way(w, g, axis, None, mixed), expected)
    assert torch.allclose(mixed, 1 + 2 * (w * g - (w * g) ** 2 / 2), atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_several_threads_add_up_to_one(axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    w, g = torch.randn(37, 50), torch.randn(37, 50)
    alone = products(w, g, axis)
    monkeypatch.setattr(kernels, "_PRODUCTS_WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    kept = torch.zeros(37, 50)
    assert torch.allclose(products(w, g, axis, kept), alone, rtol=1e-5, atol=1e-5)
    assert torch.allclose(kept, w * g)
