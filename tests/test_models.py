from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from core import demo, models
from core.errors import ModelError, StorageError
from core.spec import ModelSpec
from tests.conftest import llama_config, random_model


def test_a_folder_in_the_hubs_layout_loads(tiny_llama_folder: Path) -> None:
    loaded = models.load(ModelSpec(str(tiny_llama_folder), device="cpu"))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, random_model(llama_config())(ids).logits)
    assert (loaded.name, loaded.dtype, loaded.device.type, loaded.plan) == (
        "tiny-llama",
        torch.float32,
        "cpu",
        None,
    )
    assert loaded.tokenizer("the of")["input_ids"] == [4, 6]
    assert not loaded.model.training


def test_eager_attention_and_dtype_are_what_was_asked_for(tiny_llama_folder: Path) -> None:
    spec = ModelSpec(str(tiny_llama_folder), device="cpu", dtype="bfloat16")
    loaded = models.load(spec, attn_implementation="eager")
    assert loaded.model.config._attn_implementation == "eager"
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}


def test_a_config_alone_loads(tmp_path: Path) -> None:
    llama_config().save_pretrained(tmp_path)
    assert models.load_config(str(tmp_path)).num_hidden_layers == 2


@pytest.fixture(scope="module")
def pruned_run(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A run directory whose model has lost FFN channels of one layer and a head of the other."""
    from core import export
    from core.plan import PruningPlan, with_costs
    from core.surgery import operate
    from tests.handmade import graph_of

    run = tmp_path_factory.mktemp("runs") / "run-1"
    model = random_model(llama_config())
    graph = graph_of(model)
    plan = with_costs(
        graph, PruningPlan({"L00.ffn_channel": (1, 5), "L01.query_head": (2,)}), list(graph.groups)
    )
    export.save(operate(model, graph, plan.removed), tiny_tokenizer, graph, plan, run / "model", facts={})
    (run / "spec.json").write_text("{}")
    return run


@pytest.mark.parametrize("inside", ["", "model"])
def test_pruned_models_go_through_the_plan(pruned_run: Path, inside: str) -> None:
    from core.masks import masked
    from tests.handmade import graph_of

    loaded = models.load(ModelSpec(str(pruned_run / inside), device="cpu"))
    assert loaded.plan is not None
    dense, ids = random_model(llama_config()), torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad(), masked(dense, graph_of(dense), loaded.plan.removed):
        assert torch.allclose(loaded.model(ids).logits, dense(ids).logits, atol=1e-4)
    assert loaded.tokenizer("the of")["input_ids"] == [4, 6]


def test_a_pruned_model_without_tokenizer_is_refused(pruned_run: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(pruned_run / "model", tmp_path / "model")
    for file in (tmp_path / "model").glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match="without a tokenizer"):
        models.load(ModelSpec(str(tmp_path / "model"), device="cpu"))


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
        models.load(ModelSpec(str(tmp_path), device="cpu"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/nowhere/model", "There is no folder or file /nowhere/model"),
        ("./nowhere", "There is no folder or file"),
        ("nowhere.gguf", "There is no folder or file"),
        ("a model", "'a model' is no model"),
        ("a/b/c", "'a/b/c' is no model"),
    ],
)
def test_a_source_that_is_nothing_is_refused(source: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        models.resolve(source)


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"not a gguf at all")
    with pytest.raises(ModelError, match=r"cannot be read: .*GGUF"):
        models.load(ModelSpec(str(tmp_path / "x.gguf")))
    (tmp_path / "x.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"no \.gguf file"):
        models.load(ModelSpec(str(tmp_path / "x.bin")))


def test_an_unreachable_hub_says_so_and_suggests(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.model_info", unreachable)
    with pytest.raises(
        ModelError, match=r"'org/name', and the hub cannot be reached .*not known.*Give 'demo'"
    ):
        models.resolve("org/name")
    with pytest.raises(ModelError, match=r"Did you mean 'demo'\?"):
        models.resolve("demoo")


def test_a_cached_hub_model_needs_no_hub(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's cache layout: models--org--name/{refs/main, snapshots/<revision>/…}."""
    import shutil

    import huggingface_hub

    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--name"
    shutil.copytree(tiny_llama_folder, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "model_info", unreachable)
    loaded = models.load(ModelSpec("org/name", device="cpu"))
    assert (loaded.name, loaded.revision) == ("org/name", revision)


def test_the_best_device_is_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert models.pick_device("auto").type == "cuda"
    assert models.pick_dtype("auto", models.pick_device("auto")) == torch.bfloat16
    assert models.pick_device("cuda:0").index == 0
    with pytest.raises(ModelError, match="'cuda:1' is not here; this machine has cpu, cuda, mps"):
        models.pick_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert models.pick_device("auto").type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert models.pick_device("auto").type == "cpu"
    assert models.pick_dtype("auto", torch.device("cpu")) == torch.float32


def test_absent_devices_and_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="'cuda' is not here; this machine has cpu"):
        models.pick_device("cuda")
    with pytest.raises(ModelError, match="Unknown device 'gpu'"):
        models.pick_device("gpu")
    with pytest.raises(ModelError, match="Unknown dtype 'fp8'"):
        models.pick_dtype("fp8", torch.device("cpu"))


def test_a_missing_demo_package_names_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEVIZ_CACHE", str(tmp_path))
    monkeypatch.setattr(demo, "_PACKAGE", "no-such-package-here")
    with pytest.raises(ModelError, match=r"no-such-package-here.*make setup"):
        models.resolve("demo")


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PRUNEVIZ_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match="cannot be written"):
        demo.demo_folder()


SLOW_CONVERT = """
import sys, time
from pathlib import Path
from core import demo

def convert(gguf, folder, on_progress=None):
    with open(sys.argv[1], "a") as log:
        log.write("x")
    folder.mkdir()
    (folder / "half").write_text("")
    time.sleep(float(sys.argv[2]))
    (folder / "half").unlink()
    (folder / "config.json").write_text("{}")

demo.convert = convert
print(demo.demo_folder())
"""


def _converting(tmp_path: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW_CONVERT, str(tmp_path / "log"), str(seconds)]
    cache = {**os.environ, "PRUNEVIZ_CACHE": str(tmp_path / "cache")}
    return subprocess.Popen(command, env=cache, stdout=subprocess.PIPE, text=True)


def test_two_processes_convert_the_demo_once(tmp_path: Path) -> None:
    both = [_converting(tmp_path, 0.5) for _ in range(2)]
    answers = [process.communicate(timeout=60)[0].strip() for process in both]
    assert answers[0] == answers[1] != ""
    assert (tmp_path / "log").read_text() == "x"
    assert sorted(file.name for file in Path(answers[0]).iterdir()) == ["config.json"]


def test_a_killed_conversion_is_done_again(tmp_path: Path) -> None:
    first = _converting(tmp_path, 60)
    while not list((tmp_path / "cache").glob("*.part/half")):
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    folder = Path(_converting(tmp_path, 0).communicate(timeout=60)[0].strip())
    assert sorted(file.name for file in folder.iterdir()) == ["config.json"]
    assert not list((tmp_path / "cache").glob("*.part"))


@pytest.mark.slow
def test_the_demo_model_converts_without_loss(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    demo.convert(demo.demo_gguf(), tmp_path / "demo", lambda done, total: steps.append((done, total)))
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]
    dense = demo.read_gguf(demo.demo_gguf()).eval()
    loaded = models.load(ModelSpec(str(tmp_path / "demo"), device="cpu"))
    ids = torch.tensor([loaded.tokenizer("The capital of France is")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(dense(ids).logits, loaded.model(ids).logits)
    assert loaded.tokenizer.chat_template
    assert loaded.model.generation_config.eos_token_id == 2
