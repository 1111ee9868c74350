"""A GGUF is converted into the user's cache once, and again when the file is another one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers

from core.errors import ModelError, StorageError
from core.models import gguf as conversion
from core.models.early import check_files
from core.models.load import load
from core.models.sources import resolve
from core.spec.model import ModelSpec

LETTERS = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the"]


def write(path: Path, *, name: str = "tiny", scale: float = 0.1, kind: str = "F32") -> None:
    """A Llama of one layer, its matrices in numbers of this kind."""
    random, writer = np.random.default_rng(0), gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_license("apache-2.0")
    add: Any
    for add in (writer.add_embedding_length, writer.add_feed_forward_length):
        add(32)
    for add in (writer.add_head_count, writer.add_head_count_kv):
        add(2)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(LETTERS)
    writer.add_token_types([3, 3, *[1] * (len(LETTERS) - 2)])
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes = {"token_embd": (len(LETTERS), 32), "output_norm": (32,), "output": (len(LETTERS), 32)}
    shapes |= {f"blk.0.{part}": (32, 32) for part in parts}
    shapes |= {f"blk.0.{part}_norm": (32,) for part in ("attn", "ffn")}
    for tensor, shape in shapes.items():
        values = random.normal(size=shape).astype(np.float32) * scale
        if kind != "F32" and len(shape) == 2:
            number = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(f"{tensor}.weight", gguf.quants.quantize(values, number), raw_dtype=number)
        else:
            writer.add_tensor(f"{tensor}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRUNEVIZ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "kept"),
    [("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16), ("Q8_0", torch.float32)],
)
def test_a_file_is_converted_once_and_loses_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, kind: str, kept: torch.dtype
) -> None:
    path = tmp_path / "tiny.gguf"
    write(path, kind=kind)
    first = load(str(path), device="cpu")
    assert (first.name, len(list(cache.glob("tiny-*/config.json")))) == ("tiny", 1)
    assert first.stored == kept
    assert first.tokenizer("the")["input_ids"][-1] == LETTERS.index("the")
    ids = torch.arange(9)[None]
    theirs = conversion.read(path).eval()
    for parameter in theirs.parameters():  # norms are in 32 bits in any file
        parameter.data = parameter.data.to(kept).to(torch.float32)
    with torch.no_grad():
        assert torch.equal(first.model(ids).logits, theirs(ids).logits)

    def again(*_: object, **__: object) -> None:
        raise AssertionError("it was converted again")

    monkeypatch.setattr(conversion, "convert", again)
    assert resolve(str(path)).where == str(first.folder)
    assert "license: apache-2.0" in (Path(str(first.folder)) / "README.md").read_text()


@pytest.mark.filterwarnings("ignore")
def test_a_changed_file_is_another_model(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write(path)
    before = resolve(str(path)).where
    write(path, scale=0.2)
    assert resolve(str(path)).where != before


def test_a_part_of_a_split_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large-00001-of-00003.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="part 1 of 3; put the parts together"):
        resolve(str(path))


@pytest.mark.filterwarnings("ignore")
def test_nothing_is_left_of_a_file_that_is_none(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"not a gguf at all")
    with pytest.raises(ModelError, match=r"x\.gguf cannot be read as a GGUF model"):
        load(str(tmp_path / "x.gguf"))
    assert not cache.exists()


def test_what_has_no_room_as_plain_numbers_is_refused_at_launch(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.gguf"
    write(path, kind="Q8_0")
    numbers, usage = conversion.read_head(path).counts.total(), shutil.disk_usage
    for free, fits in ((4 * numbers, True), (4 * numbers - 1, False)):
        left = usage("/")._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, left=left: left)
        if fits:
            check_files(ModelSpec(str(path)))
            continue
        with pytest.raises(StorageError, match=r"large\.gguf would be 0\.0 GB .*in float32.*PRUNEVIZ_CACHE"):
            check_files(ModelSpec(str(path)))
    assert not cache.exists()


@pytest.mark.parametrize("cut", [0, 3, 10, 30, 200, 3000])
def test_a_file_that_ends_early_is_refused_at_launch(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "short.gguf"
    write(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match=r"short\.gguf cannot be read as a GGUF model"):
        check_files(ModelSpec(str(path)))


def test_the_head_says_what_the_package_of_gguf_reads(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write(path, kind="Q8_0")
    reader, head = gguf.GGUFReader(str(path)), conversion.read_head(path)
    assert head.counts.total() == sum(int(tensor.n_elements) for tensor in reader.tensors)
    assert {int(tensor.tensor_type) for tensor in reader.tensors} == set(head.counts)
    assert (head.facts["general.name"], head.facts["general.license"]) == ("tiny", "apache-2.0")
