"""How many windows go through at once, what is kept meanwhile, and that neither changes what comes out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from core.capture import memory
from core.capture import statistics as capturing
from core.capture.memory import window_bytes
from core.capture.peak import forget_peak, peak_gib
from core.capture.reading import GIB, Needed, reading
from core.capture.statistics import Statistics, capture
from core.devices.memory import _allowances, free_memory
from core.errors import DataError
from tests.graph.families import graph_of, model_of
from tests.handmade import ids, tiny

KEPT = {"a": 2 * GIB, "b": 3 * GIB, "c": 1 * GIB}
NEEDS = {"gradient_first"}
KINDS = ("ffn_channel", "query_head", "kv_group", "residual_channel")


def test_all_windows_go_at_once_if_memory_holds_them() -> None:
    plan = reading(16, Needed(GIB // 4, KEPT, 10 * GIB), each=False, size=None)
    assert (plan.size, plan.sweeps) == (16, (frozenset("abc"),))
    assert plan.words == (
        "All 16 windows go through at once: about 4.00 GiB of activations beside the weights, "
        "of 10.00 GiB that are free; no gradient is kept"
    )
    assert reading(1, Needed(0, KEPT, 10 * GIB), each=False, size=None).words == ""


def test_where_they_do_not_fit_few_go_and_signed_terms_are_kept() -> None:
    plan = reading(16, Needed(GIB, KEPT, 20 * GIB), each=False, size=None)
    assert (plan.size, plan.sweeps) == (4, (frozenset("abc"),))
    assert plan.words == (
        "16 windows go through 4 at a time: about 4.00 GiB of activations and 6.00 GiB of signed terms, one "
        "for every weight in scope, beside the weights, of 20.00 GiB that are free"
    )
    assert reading(16, Needed(5 * GIB, KEPT, 20 * GIB), each=False, size=None).size == 2
    assert reading(16, Needed(GIB, KEPT, 20 * GIB), each=False, size=3).size == 3
    one = reading(16, Needed(0, KEPT, 20 * GIB), each=True, size=8)
    assert one.size == 1 and one.words.startswith(
        "16 windows go through 1 at a time: 6.00 GiB of signed terms"
    )


def test_where_not_all_terms_fit_the_layers_take_turns() -> None:
    plan = reading(16, Needed(GIB, KEPT, 10 * GIB), each=False, size=2)
    assert plan.sweeps == (frozenset("a"), frozenset("bc"))
    assert "and 4.00 GiB of signed" in plan.words
    assert plan.words.endswith("; the text is read 2 times, for a part of the layers each")
    assert len(reading(16, Needed(0, KEPT, 4 * GIB), each=True, size=None).sweeps) == 3


def test_what_cannot_fit_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        DataError, match=r"need 2.00 GiB for activations and 3.00 GiB .* 4.00 GiB are free.*--l"
    ):
        reading(16, Needed(2 * GIB, KEPT, 4 * GIB), each=False, size=None)


def test_a_window_weighs_what_its_backward_reads() -> None:
    """The inputs of two layers and the output of the activation, each once; no weights."""
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    x = torch.randn(3, 8)
    weighed = window_bytes(model, lambda _: model(x), length=3, vocabulary=5)
    assert weighed == 4 * (3 * 8 + 3 * 16) + 8 * 3 * 5


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_beginning_of_a_window_tells_what_all_of_it_needs(
    attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny()
    model.set_attn_implementation(attention)
    read: list[int] = []

    def forward(tokens: int) -> torch.Tensor:
        read.append(tokens)
        return model(torch.ones(1, tokens, dtype=torch.long)).logits.square().mean()

    told = window_bytes(model, forward, length=128, vocabulary=96)
    monkeypatch.setattr(memory, "_LONG", 1000)
    whole = window_bytes(model, forward, length=128, vocabulary=96)
    assert read == [31, 128] and told == pytest.approx(whole, rel=0.05)


def statistics_of(family: str, needs: set[str], **how: object) -> tuple[Statistics, list[str]]:
    model = model_of(family)
    told: list[str] = []
    tokens = ids(model, batch=5, length=9) % model.config.get_text_config().vocab_size
    tokens[4] = 0  # the last window is padding
    found = capture(model, graph_of(family), tokens, needs=needs, kinds=KINDS, on_reading=told.append, **how)  # type: ignore[arg-type]
    return found, told


@pytest.mark.parametrize("family", ["llama_tied", "gpt2", "phi3", "bloom", "mixtral"])
def test_how_the_windows_are_read_changes_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, told = statistics_of(family, NEEDS)
    assert "at once" in told[0]
    ways = [statistics_of(family, NEEDS, batch_size=size) for size in (1, 2)]
    ways.append(statistics_of(family, {"gradient_mix", "input_mean", *NEEDS}))  # one by one, with others
    monkeypatch.setattr(capturing, "free_memory", lambda _: 100_000)
    ways.append(statistics_of(family, {"gradient_coarse", "input_mean", *NEEDS}))  # and in parts
    assert [" at a time" in told[0] for _, told in ways] == [True] * 4
    assert [" times" in told[0] for _, told in ways] == [False] * 3 + [True]
    for found, _ in ways:
        assert (found.windows, found.tokens, found.predicted) == (5, at_once.tokens, at_once.predicted)
        assert found.loss == pytest.approx(at_once.loss, rel=1e-5)
        for key, expected in at_once.values["gradient_first"].items():
            got = found.values["gradient_first"][key]
            assert torch.allclose(got, expected, rtol=2e-4, atol=1e-5 * float(expected.max())), key
    one_sweep, parts = ways[2][0].values["input_mean"], ways[3][0].values["input_mean"]
    assert one_sweep and all(torch.equal(one_sweep[key], parts[key]) for key in one_sweep)


def test_the_coarse_terms_are_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = statistics_of("llama", {"gradient_coarse", *NEEDS})
    monkeypatch.setattr(capturing, "free_memory", lambda _: 100_000)
    parts, told = statistics_of("llama", {"gradient_coarse", *NEEDS})
    assert " times" in told[0]
    for group, terms in whole.structures.items():
        assert all(
            torch.allclose(a, b, rtol=1e-5, atol=1e-6 * float(b.abs().max()))
            for a, b in zip(terms, parts.structures[group], strict=True)
        )


def test_progress_counts_every_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "free_memory", lambda _: 100_000)
    told: list[tuple[int, int]] = []
    _, words = statistics_of("llama", {"gradient_mix"}, on_progress=lambda *at: told.append(at))
    readings = told[-1][1] // 5
    assert readings > 1 and f"is read {readings} times" in words[0]
    assert told == [(n, 5 * readings) for n in range(1, 5 * readings + 1)]


def test_too_little_memory_is_said_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "free_memory", lambda _: 1000)
    told: list[tuple[int, int]] = []
    with pytest.raises(DataError, match=r"0\.00 GiB are free"):
        statistics_of("llama", NEEDS, on_progress=lambda *at: told.append(at))
    assert told == []


def test_low_precision_is_added_up_in_single() -> None:
    """Added up in bfloat16, the many equal gradients of one text would get stuck at a power of two."""
    model = model_of("llama").__class__(model_of("llama").config).bfloat16()
    graph, one = graph_of("llama"), ids(model, batch=1) % 61
    single = capture(model, graph, one, needs=NEEDS)
    many = capture(model, graph, one.repeat(600, 1), needs=NEEDS, batch_size=1)
    for key, expected in single.values["gradient_first"].items():
        assert torch.allclose(many.values["gradient_first"][key], expected, rtol=1e-3), key


def test_a_group_of_processes_may_have_less_than_the_machine(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/job/step\n")
    for folder, limit in (("job", "1000"), ("job/step", "max")):
        (tmp_path / folder).mkdir()
        for name, text in (("max", limit), ("current", "700"), ("stat", "anon 5\ninactive_file 100")):
            (tmp_path / folder / f"memory.{name}").write_text(f"{text}\n")
    assert _allowances(tmp_path, membership) == [400]
    assert _allowances(tmp_path, tmp_path / "none") == []
    assert free_memory(torch.device("cpu")) > 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux counts a process anew")
def test_the_peak_of_a_process_is_counted_anew() -> None:
    here = torch.device("cpu")
    large = torch.ones(2**26)
    before = peak_gib(here)
    del large
    forget_peak(here)
    assert peak_gib(here) < before - 0.2
