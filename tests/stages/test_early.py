"""What request and files say is refused at launch: within a second, in the same words, without a run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import PruneError
from core.runs import launch as launcher
from core.spec.explore import ExploreSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from core.stages.check import check
from pruneviz.actions.launch import launch
from pruneviz.context import AppContext
from tests.stages.steps import done

ROOT = Path(__file__).resolve().parents[2]


def edit(folder: Path, name: str = "config.json", **changes: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _quantised(folder: Path) -> None:
    edit(folder, quantization_config={"quant_method": "gptq", "bits": 4})


def _adapter_alone(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')


def _not_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _no_object(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def _many_layers(folder: Path) -> None:
    edit(folder, num_hidden_layers=10**6)


def _more_than_stored(folder: Path) -> None:
    edit(folder, num_hidden_layers=999)


def _layer_types(folder: Path) -> None:
    edit(folder, layer_types=["full_attention"])


def _uneven_heads(folder: Path) -> None:
    edit(folder, num_key_value_heads=3)


def _other_rows(folder: Path) -> None:
    edit(folder, vocab_size=4096)


def _no_names(folder: Path) -> None:
    edit(folder, architectures=5)


def _no_part(folder: Path) -> None:
    edit(folder, text_config=[1])


def _method_alone(folder: Path) -> None:
    edit(folder, quantization_config="gptq")


def _marked(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")


def _below_zero(folder: Path) -> None:
    head = b'{"x": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 0]}}'
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)


def _scaled_otherwise(folder: Path) -> None:
    """As AutoFP8 writes it: read without its scales it would be another model, and run."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if "proj" in name]:
        weights[f"{name}_scale"] = weights[name].abs().max() / 448
        weights[name] = (weights[name] / weights[f"{name}_scale"]).to(torch.float8_e4m3fn)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder, quantization_config={"quant_method": "fp8", "activation_scheme": "static"})


def _token_without_number(folder: Path) -> None:
    written = json.loads((folder / "tokenizer.json").read_text())
    written["model"]["vocab"]["the"] = "four"
    edit(folder, "tokenizer.json", model=written["model"])


def _encoder(folder: Path) -> None:
    edit(folder, architectures=["BertForMaskedLM"], model_type="bert")


def _seq2seq(folder: Path) -> None:
    edit(folder, architectures=["T5ForConditionalGeneration"], is_encoder_decoder=True)


def _large_tokenizer(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 128, "content": "<|user|>"})
    edit(folder, "tokenizer.json", added_tokens=tokenizer["added_tokens"])


def _no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def _absent_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"lm_head.weight": "model-00001-of-00002.safetensors", "norm": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def _shard_elsewhere(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../etc/passwd"}}')


def _cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _nothing(folder: Path) -> None:
    shutil.rmtree(folder)


SAID: dict[Callable[[Path], None], str] = {
    _quantised: "has quantised weights (gptq), and quantised weights cannot be pruned",
    _adapter_alone: "is an adapter of org/base, not a model",
    _not_json: "is not a valid JSON file",
    _no_object: "is not a valid JSON object",
    _many_layers: "num_hidden_layers 1,000,000, and at most 1,000 are accepted",
    _more_than_stored: "describes a model of at least 1,022,976",
    _layer_types: "says 2 layers, and layer_types for 1 of them",
    _uneven_heads: "4 query heads and 3 key-value heads",
    _other_rows: "4,096 tokens (vocab_size), and no weight has as many rows: the largest,",
    _no_names: "architectures 5, which has to be names",
    _no_part: "text_config [1], which has to be an object",
    _method_alone: "quantization_config 'gptq', which has to be an object",
    _marked: "is not a valid JSON file",
    _below_zero: "its header has a shape below zero",
    _scaled_otherwise: "has quantised weights (fp8 with scales as in ",
    _token_without_number: "has no tokenizer that can be read",
    _encoder: "BertForMaskedLM (bert): an encoder",
    _seq2seq: "an encoder with a decoder",
    _large_tokenizer: "but its tokenizer has tokens up to number 128, first '<|user|>'",
    _no_tokenizer: "has no tokenizer that can be read",
    _absent_shard: "1 of the 2 files of its weights are missing, first model-00002-of-00002.safetensors",
    _shard_elsewhere: "names '../../etc/passwd', which is no file of this folder",
    _cut_short: "is damaged",
    _pickle: "a pickle, which can run code",
    _nothing: "There is no folder or file",
}


def refused(spec: RunSpec, runs: Path) -> str:
    """The line with which the page and the command line refuse this; none of them leaves anything."""
    lines = []
    for ask in (lambda: launch(AppContext(runs), spec), lambda: check(spec)):
        began = time.process_time()
        with pytest.raises(PruneError) as told:
            ask()
        assert time.process_time() - began < 1 and not runs.exists()
        lines.append(str(told.value))
    assert lines[0] == lines[1] and "\n" not in lines[0]
    return lines[0]


@pytest.mark.parametrize("spoil", SAID, ids=lambda spoil: spoil.__name__)
def test_what_the_files_say_is_said_at_launch(
    spoil: Callable[[Path], None], spec: RunSpec, tiny_llama_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama_folder, folder)
    spoil(folder)
    asked = replace(spec, model=ModelSpec(str(folder), "cpu"))
    line = refused(asked, tmp_path / "runs")
    assert SAID[spoil] in line and str(folder) in line
    for goal in ("sweep", "explore"):
        other = replace(asked, goal=goal, sweep=SweepSpec(methods=("l2",)), explore=ExploreSpec(("scores",)))
        assert refused(other, tmp_path / "runs") == line


def test_what_the_request_says_is_said_at_launch(spec: RunSpec, tmp_path: Path) -> None:
    beyond = replace(spec, prune=PruneSpec("l2", 0.2, layers="0:9"))
    assert "which has layers 0 to 1" in refused(beyond, tmp_path / "runs")
    long = replace(spec, calibration=replace(spec.calibration, length=512))
    assert "length is 512, but this model reads 256 tokens" in refused(long, tmp_path / "runs")


def test_a_cut_model_that_cannot_be_cut_further_is_said_at_launch(spec: RunSpec, tmp_path: Path) -> None:
    run = done(tmp_path / "before", spec)
    again = replace(spec, model=ModelSpec(str(run), "cpu"), prune=PruneSpec("l2", 0.999))
    assert "0.999" in refused(again, tmp_path / "runs")
    (run / "model" / "plan.json").write_text("{}")
    assert "plan.json" in refused(replace(again, prune=PruneSpec("l2", 0.1)), tmp_path / "runs")


def test_an_adapter_that_adds_no_numbers_is_said_at_launch(spec: RunSpec, tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    told = {"peft_type": "PROMPT_TUNING", "base_model_name_or_path": "org/base"}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    asked = replace(spec, model=replace(spec.model, adapter=str(folder)))
    assert "it is PROMPT_TUNING, which adds no numbers to weights" in refused(asked, tmp_path / "runs")


def test_what_is_fine_starts(spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "WORKER", ("true",))
    assert launch(AppContext(tmp_path), spec).is_dir()


def test_all_of_it_takes_no_torch(spec: RunSpec, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(spec.to_json())
    program = (
        "import sys; from core.spec.run import RunSpec; from core.stages.early import check_early; "
        "check_early(RunSpec.from_json(open(sys.argv[1]).read())); "
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    asked = [sys.executable, "-c", program, str(tmp_path / "spec.json")]
    assert subprocess.run(asked, cwd=ROOT, capture_output=True, text=True).stdout.strip() == "[]"
