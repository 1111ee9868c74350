"""Which weights rest where: the device that computes first, then other cards, memory, and disk."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from core.devices import spread as spreading
from core.devices.lending import DISK, spread_of
from core.devices.spread import planned, words
from core.errors import ModelError, SpecError
from core.models.load import load
from core.runs import company
from core.spec.model import ModelSpec, memory_of
from tests.graph.families import model_of
from tests.handmade import ids, logits

KIB = 2**10


@pytest.fixture
def three_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cards with 100 KiB each, and memory without end."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr(spreading, "free_memory", lambda device: 2**40 if device.type == "cpu" else 100 * KIB)


def test_cards_are_filled_in_turn_and_the_one_that_computes_comes_first(three_cards: None) -> None:
    model, told = model_of("gemma3"), "cuda:1=120KiB,cuda:0=60KiB,cuda:2=0KiB"
    spread = planned(model, torch.device("cuda:1"), torch.float32, told)
    found = [spread.place(name) for name, _ in model.named_parameters()]
    assert spread.main == "cuda:1" and found[0] == "cuda:1"
    runs = [place for place, before in zip(found, ["", *found], strict=False) if place != before]
    assert runs == ["cuda:1", "cuda:0", "cpu"]
    inside = {
        (name.split(".")[2], spread.place(name)) for name, _ in model.named_parameters() if ".layers." in name
    }
    assert len(inside) == 6, "no layer is taken apart"


def test_a_card_that_cannot_hold_the_embedding_is_refused_with_the_numbers(three_cards: None) -> None:
    with pytest.raises(ModelError, match=r"cuda:0 may hold 0.00 MiB of weights, too little for .*embed.* --"):
        planned(model_of("llama"), torch.device("cuda"), torch.float32, "cuda:0=1KiB")


def test_what_fits_stays_together(three_cards: None) -> None:
    spread = planned(model_of("llama"), torch.device("cpu"), torch.float32, "")
    assert not spread.places
    assert words(model_of("llama"), spread).endswith("in memory; of 2 layers 2 in memory")


def test_of_a_launch_each_process_has_the_card_that_it_computes_on(
    three_cards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(company, "size", lambda: 3)
    spread = planned(model_of("gemma3"), torch.device("cuda:1"), torch.float32, "cuda:1=120KiB")
    assert spread.main == "cuda:1" and set(spread.places.values()) == {"cpu"}


def test_what_memory_cannot_hold_rests_on_disk(tiny_llama_folder: Path) -> None:
    plain = load(str(tiny_llama_folder), device="cpu")
    away = load(str(tiny_llama_folder), device="cpu", device_map="auto", max_memory="cpu=64KiB")
    spread = spread_of(away.model)
    assert spread and {DISK} == set(spread.places.values())
    assert words(away.model, spread).endswith(
        "MiB on disk; of 2 layers 2 on disk. cpu computes, and is lent what rests elsewhere"
    )
    assert torch.equal(logits(away.model, ids(away.model)), logits(plain.model, ids(plain.model)))


def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(ModelError, match="max_memory names cuda:7, which is not here; this machine has cpu"):
        planned(copy.deepcopy(model_of("llama")), torch.device("cpu"), torch.float32, "cuda:7=1GiB")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("20GiB", "max_memory must be devices with what they may hold, got '20GiB'; write cuda:0=20GiB"),
        ("gpu=2GiB", "got 'gpu=2GiB'; write"),
        ("cuda:0=2G", "got 'cuda:0=2G'; write"),
        ("cuda=1GiB,cuda:0=2GiB", "max_memory names cuda:0 twice"),
    ],
)
def test_what_is_no_memory_is_refused(given: str, said: str) -> None:
    with pytest.raises(SpecError) as error:
        ModelSpec(device_map="auto", max_memory=given)
    assert said in str(error.value)


def test_memory_is_read_in_units() -> None:
    assert memory_of("cuda=1.5GiB, cpu=2GB") == {"cuda:0": 3 * 2**29, "cpu": 2 * 10**9}
    with pytest.raises(SpecError, match="counts for nothing without --device-map auto"):
        ModelSpec(max_memory="cpu=1GiB")
