"""What an engine answers is what the model says: texts, measurements, attention, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.engine.client import Engine
from core.errors import DataError, InputError, LaunchError, ModelError, NotPrunableError
from tests.engine.asking import PROMPT


def test_what_it_writes_is_what_the_model_writes(
    engine: Engine, tiny_llama: Any, tiny_tokenizer: Any, tiny_llama_folder: Path
) -> None:
    from core.evaluate.generation import generate

    *pieces, done = engine.generate(str(tiny_llama_folder), PROMPT, max_new_tokens=12)
    wanted = generate(tiny_llama, tiny_tokenizer, PROMPT, max_new_tokens=12)
    assert "".join(piece["piece"] for piece in pieces) == wanted.text != ""
    assert (done["done"], done["tokens"], done["stopped"]) == (True, wanted.tokens, False)
    assert done["tokens_per_second"] == pytest.approx(done["tokens"] / done["seconds"])
    settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 2.0, "top_p": 0.9, "seed": 5}
    drawn = engine.generate(str(tiny_llama_folder), PROMPT, **settings)
    assert (
        "".join(event.get("piece", "") for event in drawn)
        == generate(tiny_llama, tiny_tokenizer, PROMPT, **settings).text
    )


def test_a_model_in_8_bits_answers_as_one_put_in_8_bits_does(
    engine: Engine, tiny_llama: Any, tiny_tokenizer: Any, tiny_llama_folder: Path
) -> None:
    from core.evaluate.generation import generate
    from core.surgery.int8 import quantized

    plain = engine.load(str(tiny_llama_folder))
    *pieces, done = engine.generate(str(tiny_llama_folder), PROMPT, max_new_tokens=12, int8=True)
    wanted = generate(quantized(tiny_llama), tiny_tokenizer, PROMPT, max_new_tokens=12)
    assert "".join(piece["piece"] for piece in pieces) == wanted.text and not done["stopped"]
    (card,) = engine.state()["models"].values()
    assert card["dtype"] in ("int8, weights only", "LLM.int8()") and card["memory_gib"] < plain["memory_gib"]
    assert engine.load(str(tiny_llama_folder)) == plain, "which is another model, and read anew"


def test_a_mask_is_tried_for_one_call(
    engine: Engine, tiny_llama: Any, tiny_tokenizer: Any, tiny_llama_folder: Path, text: str
) -> None:
    from core.evaluate.perplexity import perplexity
    from core.models.texts import evaluation_text
    from core.models.windows import consecutive_windows
    from core.surgery.masks import masked
    from tests.handmade import graph_of

    removed = {"L00.ffn_channel": tuple(range(0, 40)), "L01.query_head": (0, 3)}
    windows = consecutive_windows(tiny_tokenizer, evaluation_text(text), window=20, tokens=200)
    dense = perplexity(tiny_llama, windows).ppl
    with masked(tiny_llama, graph_of(tiny_llama), removed):
        wanted = perplexity(tiny_llama, windows).ppl

    def ask(gone: Any) -> dict[str, Any]:
        return engine.perplexity(str(tiny_llama_folder), text, window=20, tokens=200, removed=gone)

    assert ask(None)["ppl"] == pytest.approx(dense, rel=1e-5)
    answer = ask(removed)
    assert answer["ppl"] == pytest.approx(wanted, rel=1e-5) != dense
    assert (answer["window"], answer["tokens"], answer["text"]) == (20, 200, "words.txt")
    assert ask({})["ppl"] == pytest.approx(dense, rel=1e-5), "the mask is still on"

    def write(gone: Any) -> list[Any]:
        events = engine.generate(str(tiny_llama_folder), PROMPT, max_new_tokens=10, removed=gone)
        return [event.get("piece") for event in events]

    assert write(removed) != write(None)


def test_attention_of_two_heads_comes_with_its_tokens(engine: Engine, tiny_llama_folder: Path) -> None:
    shown = engine.attention(str(tiny_llama_folder), "the a of " * 40, 1, [0, 3])
    assert len(shown["maps"]) == 2 and len(shown["tokens"]) == len(shown["maps"][0]) == 96
    assert shown["cut"] == 120 - 96 and shown["tokens"][:3] == ["the", "a", "of"]
    assert all(abs(sum(row) - 1) < 1e-4 for head in shown["maps"] for row in head)
    with pytest.raises(DataError, match="heads 0 to 3"):
        engine.attention(str(tiny_llama_folder), "the", 0, [7])


def test_errors_keep_their_kind_and_words(engine: Engine, tiny_llama_folder: Path, text: str) -> None:
    with pytest.raises(ModelError, match="There is no folder or file /nowhere"):
        engine.load("/nowhere")
    with pytest.raises(InputError, match="no chat template"):
        list(engine.generate(str(tiny_llama_folder), PROMPT, chat=True))
    with pytest.raises(DataError, match="Unknown text"):
        engine.perplexity(str(tiny_llama_folder), "nowhere")
    with pytest.raises(NotPrunableError, match="no group 'L09"):
        engine.perplexity(
            str(tiny_llama_folder), text, window=20, tokens=40, removed={"L09.ffn_channel": [1]}
        )
    with pytest.raises(LaunchError, match="The engine failed: TypeError"):
        engine.perplexity(str(tiny_llama_folder), text, window="x")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_a_model_with_an_adapter_is_another_one(
    engine: Engine, tiny_llama: Any, tiny_tokenizer: Any, tiny_llama_folder: Path, tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from core.evaluate.generation import generate

    config = LoraConfig(r=2, target_modules=["down_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    torch.manual_seed(0)
    both = get_peft_model(tiny_llama, config)
    both.save_pretrained(tmp_path, save_embedding_layers=False)
    wanted = generate(both.merge_and_unload(), tiny_tokenizer, PROMPT, max_new_tokens=12)
    for adapter in ("", str(tmp_path), ""):
        events = engine.generate(str(tiny_llama_folder), PROMPT, max_new_tokens=12, adapter=adapter)
        text = "".join(event.get("piece", "") for event in events)
        assert (text == wanted.text) == bool(adapter)
