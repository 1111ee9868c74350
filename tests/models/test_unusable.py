"""Folders, files and names that are no model here are refused with a reason."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from core.errors import ModelError
from core.models import sources
from core.models.load import load
from core.models.sources import at_hand, resolve
from tests.conftest import llama_config, random_model


def _encoder(folder: Path) -> None:
    from transformers import BertConfig

    BertConfig(architectures=["BertForMaskedLM"]).save_pretrained(folder)


def _seq2seq(folder: Path) -> None:
    from transformers import T5Config

    T5Config(architectures=["T5ForConditionalGeneration"]).save_pretrained(folder)


def _vision(folder: Path) -> None:
    from transformers import ViTConfig

    ViTConfig(architectures=["ViTForImageClassification"]).save_pretrained(folder)


def _no_config(folder: Path) -> None:
    (folder / "notes.txt").write_text("nothing here")


def _gguf_inside(folder: Path) -> None:
    (folder / "model.gguf").write_bytes(b"GGUF")


def _broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _unknown_type(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "nosuchthing"}))


def _no_weights(folder: Path) -> None:
    _tiny(folder, keep=())


def _pickled_weights(folder: Path) -> None:
    _tiny(folder, keep=())
    (folder / "pytorch_model.bin").write_bytes(b"a pickle would be here")


def _damaged_weights(folder: Path) -> None:
    _tiny(folder, keep=("model.safetensors",))
    (folder / "model.safetensors").write_bytes(b"junk")


def _incomplete_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    _tiny(folder, keep=("model.safetensors",))
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _no_tokenizer(folder: Path) -> None:
    random_model(llama_config()).save_pretrained(folder)


def _run_without_model(folder: Path) -> None:
    (folder / "spec.json").write_text("{}")


def _tiny(folder: Path, keep: tuple[str, ...]) -> None:
    from tokenizers import Tokenizer
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    random_model(llama_config()).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(kinds.WordLevel({"a": 0}, unk_token="a"))
    ).save_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        if file.name not in keep:
            file.unlink()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_no_config, "has no config.json"),
        (_gguf_inside, r"give the file .*model\.gguf instead"),
        (_encoder, r"BertForMaskedLM \(bert\): an encoder.*AutoModelForCausalLM"),
        (_seq2seq, r"T5ForConditionalGeneration \(t5\): an encoder with a decoder"),
        (_vision, r"ViTForImageClassification \(vit\).*does not predict the next token"),
        (_broken_config, "cannot be read: .*not a valid JSON"),
        (_unknown_type, "cannot be read: .*nosuchthing"),
        (_no_weights, "cannot be read: .*model.safetensors"),
        (_pickled_weights, r"pytorch_model\.bin only, a pickle.*save the model as safetensors"),
        (_damaged_weights, "cannot be read: .*header"),
        (_incomplete_weights, r"lacks 1 of the model's weights, first model\.layers\.1\.mlp\.down_proj"),
        (_no_tokenizer, "has no tokenizer"),
        (_run_without_model, "has left no model"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_bad_folder_is_refused_with_a_reason(tmp_path: Path, make, message: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path)
    with pytest.raises(ModelError, match=message):
        load(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/nowhere/model", "There is no folder or file /nowhere/model"),
        ("./nowhere", "There is no folder or file"),
        ("nowhere.gguf", "There is no folder or file"),
        ("a model", "'a model' is not a model"),
        ("a/b/c", "'a/b/c' is not a model"),
    ],
)
def test_a_source_that_is_nothing_is_refused(source: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resolve(source)


def test_a_mistyped_path_is_answered_without_the_hub_and_with_the_nearest_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.model_info", asked)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "20260101-prune").mkdir(parents=True)
    (tmp_path / "tiny.gguf").touch()
    for source, message in (
        ("runs/20260101-prine", r"no 20260101-prine in the folder runs\. Did you mean runs/20260101-prune\?"),
        ("runs/xyz", r"There is no xyz in the folder runs\. Give .*hf download runs/xyz"),
        ("./run", r"no folder or file \./run\. Did you mean runs\?"),
        ("./rums/20260101-prune", r"Did you mean runs\?"),
        ("./demoo", r"no folder or file \./demoo\. Did you mean demo\? Give"),
        ("tinny.gguf", r"Did you mean tiny\.gguf\?"),
    ):
        with pytest.raises(ModelError, match=message) as refusal:
            resolve(source)
        assert "\n" not in str(refusal.value)


def test_a_model_in_the_cache_is_found_beside_a_folder_of_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    (tmp_path / "cache" / "models--org--name").mkdir(parents=True)
    assert at_hand("org/name") is None and at_hand("other/name") is None
    with pytest.raises(ModelError, match="hf download org/else"):
        at_hand("org/else")


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = threading.Event()
    monkeypatch.setattr("huggingface_hub.model_info", lambda *_, **__: waits.wait(20))
    monkeypatch.setattr(sources, "PATIENCE", 0.05)
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"the hub cannot be reached .*no answer within"):
        resolve("org/name")
    waits.set()
    assert time.monotonic() - began < 10


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"not a \.gguf file"):
        load(str(tmp_path / "x.bin"))


def test_an_unreachable_hub_says_so_and_suggests(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.model_info", unreachable)
    with pytest.raises(
        ModelError, match=r"'org/name', and the hub cannot be reached .*not known.*Give 'demo'"
    ):
        resolve("org/name")
    with pytest.raises(ModelError, match=r"Did you mean 'demo'\?"):
        resolve("demoo")
