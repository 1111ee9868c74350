"""Fixtures that several test folders share: a tiny random Llama, its folder on disk, and its tokenizer."""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
BROWSER = "tests/browser/"
if "PYTEST_XDIST_WORKER" in os.environ:  # torch in each of several processes would take all cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that drive a browser come first: all of them run in one process, which has most to do."""
    items.sort(key=lambda item: not item.nodeid.startswith(BROWSER))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of a file, and all that drive a browser, run in one process."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return BROWSER if nodeid.startswith(BROWSER) else nodeid.partition("::")[0]

    return Together(config, log)


@pytest.fixture(autouse=True, scope="session")
def states_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the workbench keeps for its user is kept for these tests alone."""
    os.environ["PRUNEVIZ_STATE_DIR"] = str(tmp_path_factory.mktemp("states"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why a test that passed on its second try had failed on its first."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"first try of {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)


def _reads_back_here(patch: pytest.MonkeyPatch, how: str = "here") -> None:
    """Have saved models read back in this process, or `as shipped`; nothing where none can be saved yet."""
    if "core.models.readback" not in sys.modules:
        return
    from core.models import readback, reading

    shipped = getattr(readback._in_new_process, "shipped", readback._in_new_process)

    def here(folder: Path, path: Path) -> list[dict[str, Any]]:
        return [asdict(row) for row in reading.compare(folder, path)]

    here.shipped = shipped  # type: ignore[attr-defined]
    patch.setattr(readback, "_in_new_process", here if how == "here" else shipped)


@pytest.fixture(autouse=True, scope="session")
def read_back_in_this_process() -> Iterator[None]:
    """A new process for every model that a test or a fixture saves would take seconds each."""
    with pytest.MonkeyPatch.context() as patch:
        _reads_back_here(patch)
        yield


@pytest.fixture(autouse=True)
def read_back_as_asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The marker `new_process` asks for one."""
    _reads_back_here(monkeypatch, "as shipped" if "new_process" in request.keywords else "here")


WORDS = "the a of to and in is it that for on with as was at by be this from or an have not are but"


def llama_config(**changes: object):  # type: ignore[no-untyped-def]
    """A 2-layer grouped-query Llama config, small enough for every test."""
    from transformers import LlamaConfig

    settings: dict[str, object] = dict(
        vocab_size=128, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=256, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return LlamaConfig(**{**settings, **changes})


def random_model(config):  # type: ignore[no-untyped-def]
    """A model of this config with seeded random weights, large enough that pruning shows in the logits."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter.ndim == 1))
    return model


@pytest.fixture
def tiny_llama():  # type: ignore[no-untyped-def]
    """A fresh 2-layer grouped-query Llama in float32 on the CPU."""
    return random_model(llama_config())


def word_tokenizer(size: int = 128):  # type: ignore[no-untyped-def]
    """A word-level tokenizer of so many entries, so texts can be tokenised without a download."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>", *WORDS.split()]
    vocabulary = {word: i for i, word in enumerate([*words, *(f"w{i}" for i in range(size - len(words)))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def tiny_tokenizer():  # type: ignore[no-untyped-def]
    """`word_tokenizer`, made once."""
    return word_tokenizer()


@pytest.fixture(scope="session")
def tiny_llama_folder(tmp_path_factory, tiny_tokenizer) -> Path:  # type: ignore[no-untyped-def]
    """A folder in the hub's layout: config, safetensors, tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    random_model(llama_config()).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two texts of words that the tiny tokenizer knows: to calibrate or train on, and to measure on."""
    folder, draw = tmp_path_factory.mktemp("texts"), random.Random(0)
    calibration, evaluation = folder / "calibration.txt", folder / "evaluation.txt"
    for path in (calibration, evaluation):
        path.write_text(" ".join(draw.choices(WORDS.split(), k=2000)))
    return calibration, evaluation


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real texts and benchmarks beside the project; skips where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder with real texts is not there")
    return folder


@pytest.fixture(scope="session")
def silent_hub() -> Iterator[dict[str, str]]:
    """The environment in which the hub takes every question and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as hub:
        yield {"HF_ENDPOINT": f"http://127.0.0.1:{hub.getsockname()[1]}", "HF_HUB_OFFLINE": "0"}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test here may reach a network; the bundled tasks are made once for all of them."""

    def refuse(*_: object) -> None:
        raise OSError("a benchmark test tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("PRUNEVIZ_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
