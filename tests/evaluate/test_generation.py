from __future__ import annotations

from typing import Any

import pytest
import torch

from core.errors import InputError
from core.evaluate.generation import generate, stream

PROMPT = "the of to and"


class Reciting(torch.nn.Module):
    """A model that says the tokens it was given, one after the other."""

    def __init__(self, prompt: int, tokens: list[int]) -> None:
        super().__init__()
        from transformers import LlamaConfig

        self.config = LlamaConfig(vocab_size=512, max_position_embeddings=4096)
        self.one, self.prompt, self.tokens = torch.nn.Parameter(torch.zeros(1)), prompt, tokens

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        from types import SimpleNamespace

        logits = torch.zeros(1, input_ids.shape[1], 512)
        logits[0, -1, self.tokens[input_ids.shape[1] - self.prompt]] = 1.0
        return SimpleNamespace(logits=logits)


def test_greedy_is_what_transformers_generates(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    ids = tiny_tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    wanted = tiny_llama.generate(ids, max_new_tokens=20, do_sample=False)[0, ids.shape[1] :]
    answer = generate(tiny_llama, tiny_tokenizer, PROMPT, max_new_tokens=20)
    assert answer.text.split() == tiny_tokenizer.decode(wanted, skip_special_tokens=True).split()
    assert answer.tokens == int((wanted != 2).sum())
    assert answer.tokens_per_second == pytest.approx(answer.tokens / answer.seconds)


def test_pieces_make_the_text(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    pieces = list(stream(tiny_llama, tiny_tokenizer, PROMPT, max_new_tokens=12))
    whole = generate(tiny_llama, tiny_tokenizer, PROMPT, max_new_tokens=12)
    assert "".join(pieces) == whole.text
    assert len(pieces) == whole.tokens + 1 > 5


def test_a_seed_is_exact_and_another_differs(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    def drawn(seed: int) -> str:
        settings: dict[str, Any] = {"max_new_tokens": 16, "temperature": 2.0, "seed": seed}
        return generate(tiny_llama, tiny_tokenizer, PROMPT, **settings).text

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_tiny_top_p_is_greedy(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    greedy = generate(tiny_llama, tiny_tokenizer, PROMPT, max_new_tokens=16).text
    drawn = generate(tiny_llama, tiny_tokenizer, PROMPT, max_new_tokens=16, temperature=1.0, top_p=1e-9).text
    assert drawn == greedy


def test_the_first_space_survives() -> None:
    """Tokenizers of this sort drop the space before the first word they decode."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"\u2581France": 0, "\u2581is": 1, "\u2581Paris": 2}))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    assert words.decode([2]) == "Paris"
    assert generate(Reciting(2, [2, 2]), words, "France is", max_new_tokens=2).text == " Paris Paris"


def test_split_letters_survive(byte_tokenizer: Any) -> None:
    prompt, answer = "Say:", " héllo €!"
    tokens = byte_tokenizer(answer)["input_ids"]
    model = Reciting(len(byte_tokenizer(prompt)["input_ids"]), tokens)
    pieces = list(stream(model, byte_tokenizer, prompt, max_new_tokens=len(tokens)))
    assert "".join(pieces) == answer
    assert not any("\ufffd" in piece for piece in pieces)


def test_it_stops_when_asked_to(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    seen: list[str] = []
    for piece in stream(tiny_llama, tiny_tokenizer, PROMPT, max_new_tokens=50, stop=lambda: len(seen) >= 3):
        seen.append(piece)
    assert len(seen) == 4, "three tokens, and what was held back"


def test_an_end_token_ends_the_text(byte_tokenizer: Any) -> None:
    tokens = byte_tokenizer("abcdef")["input_ids"]
    model = Reciting(1, tokens)
    model.generation_config = type("Config", (), {"eos_token_id": [tokens[3], 400]})()  # type: ignore[assignment]
    assert generate(model, byte_tokenizer, "x", max_new_tokens=6).text == "abc"


def test_the_context_is_never_exceeded(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    import copy

    tiny_tokenizer = copy.deepcopy(tiny_tokenizer)
    tiny_tokenizer.eos_token = tiny_llama.generation_config.eos_token_id = None
    answer = generate(tiny_llama, tiny_tokenizer, "the " * 250, max_new_tokens=50)
    assert answer.tokens == 6
    with pytest.raises(InputError, match="The prompt has 256 tokens, but this model reads 256"):
        generate(tiny_llama, tiny_tokenizer, "the " * 256, max_new_tokens=1)


def test_the_chat_template_wraps_the_prompt(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    import copy

    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = (
        "the of {{ messages[0]['content'] }}{% if add_generation_prompt %} in{% endif %}"
    )
    chat = generate(tiny_llama, tokenizer, "to and", max_new_tokens=8, chat=True).text
    assert chat == generate(tiny_llama, tiny_tokenizer, "the of to and in", max_new_tokens=8).text
    with pytest.raises(InputError, match=r"This model has no chat template; type a plain prompt\."):
        generate(tiny_llama, tiny_tokenizer, "to and", max_new_tokens=8, chat=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 or more, got 0"),
        ({"temperature": -1.0}, "temperature must be 0 or more"),
        ({"temperature": float("nan")}, "temperature must be 0 or more"),
        ({"top_p": 0.0}, "top_p must be in"),
        ({"prompt": ""}, "The prompt is empty"),
    ],
)
def test_bad_settings_are_refused(
    tiny_llama: Any, tiny_tokenizer: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        stream(tiny_llama, tiny_tokenizer, **{"prompt": PROMPT, "max_new_tokens": 4, **changes})
