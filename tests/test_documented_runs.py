"""The commands of docs/commands.md and the quick start really run, on a tiny model in place of the demo."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import models

from core.cli.app import main
from tests.conftest import llama_config, random_model
from tests.documented import CORE, ROOT, commands
from tests.ship.test_gguf_tokens import SPECIAL, split_of, trained

PAGES = [ROOT / "docs" / name for name in ("quickstart.md", "commands.md")]
#: Words of the docs -> what a tiny model and a few seconds have in their place; {} are made by the tests.
PUT = {
    "path/to/config": "{model}",
    "runs/<id>": "{run}",
    "PARAMETER": "model.layers.0.mlp.up_proj.weight",
    "commonsense": "bundled_capitals",
    "mirror": "{folder}",
    "100": "4",
    "params=100M": "params=190k",
}
#: A word anywhere in a command -> options that make it quick.
MEASURED = "--window 32 --tokens 128 --ppl-also= --no-efficiency --prompt="
TRAINED = "--recover-length 16 --batch 4 --held 2 --eval-every 2 --steps 2"
QUICK = {
    "prune": f"--samples 4 --length 32 {MEASURED}",
    "recover": TRAINED,
    "sweep": "--length 16 --window 32 --tokens 128 --ppl-also=",
    "similarity": "--samples 4 --length 16",
    "evaluate": MEASURED,
    "generate": "--max-new-tokens 3",
    "--recover": TRAINED,
    "minutes": TRAINED,
    "nuteprune": "--samples 12 --set steps=4 --set batch=2 --set held=2 --set start_samples=4",
}
#: Commands that take no folder of runs, and those that take a second or two: the default tests run these.
FOLDERLESS = ("groups", "advise", "--help")
FIRST = ("groups", "advise", "list", "--help")


def documented() -> list[list[str]]:
    """What follows `python -m core` in the two pages, but for what a sentence names by its first word."""
    all_words = [words[len(CORE) :] for page in PAGES for words in commands(page) if words[:3] == CORE]
    return [words for words in all_words if len(words) > 1 or "--help" in words]


def cases() -> list[object]:
    """A case for every command."""
    marks = [() if set(words) & set(FIRST) else (pytest.mark.slow,) for words in documented()]
    return [
        pytest.param(words, marks=mark, id=" ".join(words))
        for words, mark in zip(documented(), marks, strict=True)
    ]


def swapped(words: list[str], there: dict[str, str]) -> list[str]:
    """The command with what is tiny in the place of what is large."""
    more = [option for word, options in QUICK.items() if word in words for option in options.split()]
    model = ["{model}" if word == "demo" else word for word in words[1:2]]  # a preset is called demo, too
    runs = [] if set(words) & set(FOLDERLESS) else ["--runs-dir", "{runs}"]
    given = [words[0], *model, *words[2:], *more, *runs]
    return [PUT.get(word, word).format(**there) for word in given]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that has the layers, the heads and the tokenizer which the docs need."""
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("documented")
    config = llama_config(
        vocab_size=800, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=2048,
    )  # fmt: skip
    random_model(config).save_pretrained(folder / "model")
    tokenizer = trained(models.BPE(), split_of(("digits", "bytes")), special_tokens=SPECIAL)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder / "model")
    return folder


def names(folder: Path, run: str = "") -> dict[str, str]:
    return {"model": str(folder / "model"), "folder": str(folder), "runs": str(folder / "runs"), "run": run}


@pytest.fixture(scope="module")
def run(folder: Path) -> str:
    """A run that pruned that model."""
    assert main(swapped(["prune", "demo", "--method", "l2"], names(folder))) == 0
    return str(next((folder / "runs").glob("2*-l2-*")))


@pytest.mark.parametrize("words", cases())
def test_it_runs(
    words: list[str], folder: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    there = names(folder, request.getfixturevalue("run") if "runs/<id>" in words else "")
    assert main(swapped(words, there)) == 0, capsys.readouterr().err
