"""llama.cpp cuts texts into the tokens that the tokenizers library cuts them into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from core.errors import SpecError
from core.ship import gguf_tokens
from tests.ship.llama import Llama

ROOT = Path(__file__).resolve().parents[2]
#: What the ways to split differ in: digits, contractions, runs of spaces, scripts, marks, signs.
HARD = (
    "Hello world, it's 12345 times don't DON'T I'LL you'Re", "naïve café 東京タワー 한국어 🚀🚀 ½ ² Ⅷ",
    "a1b22c333d4444 3.14159 -- ... !!! ??? 'tis",
    "CamelCaseHTTPServer snake_case() {x: [1,2]};\n    return\n",
    "combining é e\u0301 Ünï ẞ\u00a0nbsp\u2003em", "'s 's 'S'LL 'vE",
    "1 22 333 4444 55555  \n 66\n\n\n and\tTabs \r\n x ",
)  # fmt: skip
SPECIAL = ["<s>", "</s>", "<unk>"]


def split_of(steps: tuple[str, ...]) -> Any:
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if steps == (gguf_tokens._GPT2,):
        return plain
    if len(steps) == 2:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(True), plain])
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(steps[0]), "isolated"), bytes_only])


def trained(rules: Any, split: Any, **settings: Any) -> Tokenizer:
    tokenizer = Tokenizer(rules)
    tokenizer.pre_tokenizer = split
    trainer = trainers.BpeTrainer(vocab_size=800, show_progress=False, **settings)
    tokenizer.train_from_iterator((ROOT / "README.md").read_text().splitlines(), trainer)
    return tokenizer


def in_llama_cpp(tokenizer: Tokenizer, folder: Path) -> tuple[PreTrainedTokenizerFast, Llama]:
    """The tokenizer, and a file with it and a model of one layer."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    writer, count = gguf.GGUFWriter(folder / "tokens.gguf", "deci"), len(fast)
    add: Any
    for add in (writer.add_embedding_length, writer.add_key_length, writer.add_value_length):
        add(32)
    for add in (writer.add_block_count, writer.add_head_count, writer.add_head_count_kv):
        add(1)
    writer.add_feed_forward_length(32)
    writer.add_context_length(128)
    writer.add_layer_norm_rms_eps(1e-5)
    gguf_tokens.add_tokenizer(writer, folder, count, None)
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes = {
        "token_embd": (count, 32),
        "output_norm": (32,),
        **{f"blk.0.{part}": (32, 32) for part in parts},
    }
    for name, shape in {**shapes, "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}.items():
        writer.add_tensor(f"{name}.weight", np.ones(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return fast, Llama(folder / "tokens.gguf")


def both(fast: PreTrainedTokenizerFast, llama: Llama) -> tuple[list[list[int]], list[list[int]]]:
    return [fast.encode(text, add_special_tokens=False) for text in HARD], [
        llama.tokens(text) for text in HARD
    ]


@pytest.mark.parametrize("steps", gguf_tokens.SPLITS, ids=[name for name, _ in gguf_tokens.SPLITS.values()])
def test_a_split_that_has_a_name_is_the_one_of_that_name(steps: tuple[str, ...], tmp_path: Path) -> None:
    _, whole = gguf_tokens.SPLITS[steps]
    alphabet = {"special_tokens": SPECIAL, "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    tokenizer = trained(models.BPE(ignore_merges=whole), split_of(steps), **alphabet)
    tokenizer.decoder = decoders.ByteLevel()
    ours, theirs = both(*in_llama_cpp(tokenizer, tmp_path))
    assert theirs == ours


def test_a_tokenizer_of_sentencepiece_merges_in_the_same_order(tmp_path: Path) -> None:
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    split = pre_tokenizers.Metaspace()
    described = json.loads(trained(models.BPE(unk_token="<unk>"), split, special_tokens=special).to_str())
    described["model"] |= {"byte_fallback": True, "fuse_unk": True}
    described["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    ours, theirs = both(*in_llama_cpp(tokenizer, tmp_path))
    assert theirs == ours


def test_a_split_without_a_name_is_refused_with_a_way_out(tmp_path: Path) -> None:
    tokenizer = trained(models.BPE(), pre_tokenizers.Whitespace(), special_tokens=SPECIAL)
    with pytest.raises(SpecError, match=r"not known of llama\.cpp; take it from .* --tokenizer FILE"):
        in_llama_cpp(tokenizer, tmp_path)
