"""An adapter beside a model does not count, alone it is named, and given with a model it is merged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from core.errors import ModelError
from core.models.load import check_model, load
from core.models.sources import resolve
from core.runs.command_line import command_line
from core.runs.paths import absolute
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from tests.conftest import llama_config, random_model, word_tokenizer

IDS = torch.tensor([[5, 6, 7, 8, 9]])


pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture
def adapted(tmp_path: Path) -> tuple[Path, Path, torch.Tensor]:
    """A model, an adapter of it, and what both together compute."""
    from peft import LoraConfig, get_peft_model

    base, folder = tmp_path / "base", tmp_path / "adapter"
    random_model(llama_config()).save_pretrained(base)
    word_tokenizer().save_pretrained(base)
    model = random_model(llama_config())
    model.name_or_path = "somebody/base"
    both = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, value in both.named_parameters():
            if "lora_B" in name:
                value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
        both.save_pretrained(folder, save_embedding_layers=False)
        return base, folder, both(input_ids=IDS).logits


def test_an_adapter_alone_is_named_with_its_base(adapted: tuple[Path, Path, torch.Tensor]) -> None:
    with pytest.raises(ModelError, match=r"adapter is an adapter of somebody/base, not a model; .*--adapter"):
        resolve(str(adapted[1]))


def test_a_given_adapter_is_merged(adapted: tuple[Path, Path, torch.Tensor]) -> None:
    base, folder, wanted = adapted
    loaded = load(str(base), device="cpu", adapter=str(folder))
    with torch.no_grad():
        assert torch.allclose(loaded.model(IDS).logits, wanted, atol=1e-5)
    assert not any("lora" in name for name in loaded.model.state_dict())


def test_files_left_over_beside_a_model_do_not_count(adapted: tuple[Path, Path, torch.Tensor]) -> None:
    base, folder, _ = adapted
    with torch.no_grad():
        wanted = load(str(base), device="cpu").model(IDS).logits
    for path in folder.glob("adapter_*"):
        shutil.copy(path, base)
    loaded = load(str(base), device="cpu")
    with torch.no_grad():
        assert torch.equal(loaded.model(IDS).logits, wanted)
    assert "beside the full model: the model is read without it" in loaded.notes[0]
    assert str(base) == loaded.model.config._name_or_path


def test_an_adapter_of_another_model_is_refused(
    adapted: tuple[Path, Path, torch.Tensor], tmp_path: Path
) -> None:
    random_model(llama_config(hidden_size=64)).save_pretrained(tmp_path / "other")
    word_tokenizer().save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match=r"adapter of somebody/base, cannot be merged into .*size mismatch"):
        load(str(tmp_path / "other"), device="cpu", adapter=str(adapted[1]))


def test_a_folder_that_is_no_adapter_is_refused(adapted: tuple[Path, Path, torch.Tensor]) -> None:
    base, folder, _ = adapted
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no adapter that can be merged: it has no adapter_model"):
        check_model(ModelSpec(source=str(base), adapter=str(folder)))


def test_a_run_keeps_the_adapter(adapted: tuple[Path, Path, torch.Tensor], tmp_path: Path) -> None:
    spec = RunSpec(model=ModelSpec(source=str(adapted[0]), adapter=str(adapted[1])))
    assert absolute(spec).model.adapter == str(adapted[1])
    assert absolute(RunSpec(model=ModelSpec())).model.adapter == ""
    assert f"--adapter {adapted[1]}" in command_line(spec)
