"""The tokenizer in a GGUF file: copied from the file that the model came from, or told from `tokenizer.json`.

llama.cpp does not read how a byte-level tokenizer splits text into words, but a name for it. A split is named
here only where the tests saw llama.cpp cut texts as the tokenizers library does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf

from core.errors import ArtifactError, SpecError
from core.models.demo import demo_gguf
from core.runs.artifacts import SPEC, read_spec

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_ENDS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
_UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
_TEKKEN = rf"{_CASED}|{_UPPER}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_DIGITS = "one digit at a time"
#: How text is split, step by step -> llama.cpp's name, and whether whole words pass over the merges there.
SPLITS: dict[tuple[str, ...], tuple[str, bool]] = {
    (_GPT2,): ("gpt-2", False),
    (_DIGITS, _GPT2): ("smollm", False),
    (_WORDS + r"\p{N}{1,3}" + _ENDS,): ("llama-bpe", True),
    (_WORDS + r"\p{N}" + _ENDS,): ("qwen2", False),
    (_TEKKEN,): ("tekken", True),
}
_ADVICE = "take it from a GGUF file of the base model with --tokenizer FILE"
_PREFIX = "tokenizer."


def base_gguf(model: Path) -> Path | None:
    """The GGUF file that a pruned model was made from in the first place, or None."""
    for _ in range(8):  # runs that began with the result of another
        if not (model.parent / SPEC).is_file():
            return None
        source = read_spec(model.parent).model.source
        if source == "demo":
            return demo_gguf()
        path = Path(source).expanduser()
        if path.suffix.lower() == ".gguf":
            return path if path.is_file() else None
        model = path if path.name == model.name else path / model.name
    return None


def add_tokenizer(writer: gguf.GGUFWriter, model: Path, tokens: int, given: Path | None) -> str:
    """Write the tokenizer. Returns where it is from, for people.

    Args:
        model: the folder of the pruned model; tokens: how many its embedding has.
        given: a GGUF file to copy it from; None for the model's own.

    Raises:
        SpecError: `tokenizer.json` says something that llama.cpp has no name for, or the file given is no
            GGUF with so many tokens.
    """
    source = given or base_gguf(model)
    if source is not None:
        _copy(writer, source, tokens)
        return f"The tokenizer is that of {source.name}."
    path = model / "tokenizer.json"
    if not path.is_file():
        writer.add_tokenizer_model("none")
        return "The model has no tokenizer, so the file takes and gives token ids alone."
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); copy the dense model's file there.") from error
    _tell(writer, described, model, tokens)
    return "The tokenizer is the model's own."


def _copy(writer: gguf.GGUFWriter, source: Path, tokens: int) -> None:
    """Copy every word that a file says of its tokenizer. Raises SpecError."""
    with source.open("rb") as file:
        if file.read(4) != gguf.GGUF_MAGIC.to_bytes(4, "little"):
            raise SpecError(f"{source} is no GGUF file; give one of the base model.")
    try:
        fields = gguf.GGUFReader(source).fields
        held = len(fields[gguf.Keys.Tokenizer.LIST].data)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise SpecError(
            f"{source} cannot be read as a GGUF file with a tokenizer ({error}); give another."
        ) from error
    if held > tokens:
        raise SpecError(
            f"{source} has {held:,} tokens, this model {tokens:,}; give a file of its base model."
        )
    for name, value in fields.items():
        if name.startswith(_PREFIX):
            kinds = value.types
            contents = value.contents()
            if name in _FILLERS:
                contents = [*contents, *(_FILLERS[name](i) for i in range(held, tokens))]
            writer.add_key_value(name, contents, kinds[0], kinds[-1] if len(kinds) > 1 else None)


#: What an entry of an embedding without a token of its own is called.
_FILLERS: Mapping[str, Any] = {
    gguf.Keys.Tokenizer.LIST: "[PAD{}]".format,
    gguf.Keys.Tokenizer.TOKEN_TYPE: lambda _: int(gguf.TokenType.UNUSED),
    gguf.Keys.Tokenizer.SCORES: lambda _: -1000.0,
}


def _tell(writer: gguf.GGUFWriter, described: Mapping[str, Any], model: Path, tokens: int) -> None:
    """Write what `tokenizer.json` says. Raises SpecError for what llama.cpp has no word for."""
    rules = described["model"]
    if rules.get("type") != "BPE":
        raise SpecError(
            f"The model's tokenizer is of type {rules.get('type')}, where BPE can be told; {_ADVICE}."
        )
    vocabulary: dict[int, str] = {number: text for text, number in rules["vocab"].items()}
    kinds = dict.fromkeys(vocabulary, gguf.TokenType.NORMAL)
    for token in described.get("added_tokens", ()):
        vocabulary[token["id"]] = token["content"]
        kinds[token["id"]] = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
    scores = None
    if rules.get("byte_fallback", False):
        scores = _scores(writer, described)
    else:
        _bytewise(writer, described)
    if max(vocabulary, default=0) >= tokens:
        raise SpecError(
            f"The model's tokenizer has more than the {tokens:,} tokens of its embedding; {_ADVICE}."
        )
    if scores is not None:
        kinds |= {i: gguf.TokenType.BYTE for i, text in vocabulary.items() if _is_byte(text)}
        kinds |= {
            i: gguf.TokenType.UNKNOWN for i, text in vocabulary.items() if text == rules.get("unk_token")
        }
        writer.add_token_scores([scores.get(vocabulary.get(i, ""), -1e4) for i in range(tokens)])
    writer.add_token_list([vocabulary.get(i, f"[PAD{i}]") for i in range(tokens)])
    writer.add_token_types([int(kinds.get(i, gguf.TokenType.UNUSED)) for i in range(tokens)])
    gguf.SpecialVocab(model, load_merges=scores is None, n_vocab=tokens).add_to_gguf(writer, quiet=True)


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _bytewise(writer: gguf.GGUFWriter, described: Mapping[str, Any]) -> None:
    """Name the split of a byte-level tokenizer. Raises SpecError where llama.cpp is not known to have it."""
    steps = _steps(described.get("pre_tokenizer"))
    normaliser = (described.get("normalizer") or {}).get("type")
    if steps not in SPLITS or normaliser not in (None, "NFC"):
        raise SpecError(
            f"The model's tokenizer splits text in a way that is not known of llama.cpp; {_ADVICE}."
        )
    name, whole = SPLITS[steps]
    if bool(described["model"].get("ignore_merges")) != whole:
        raise SpecError(f"The model's tokenizer splits as {name}, but merges otherwise; {_ADVICE}.")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)


def _steps(described: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The ways in which a pre-tokenizer splits, in order; `?` for any that is not one of those above."""
    if described is None:
        return ("?",)
    if described["type"] == "Sequence":
        return tuple(step for part in described["pretokenizers"] for step in _steps(part))
    if described["type"] == "ByteLevel" and not described.get("add_prefix_space"):
        return (_GPT2,) if described.get("use_regex", True) else ()
    if described["type"] == "Digits" and described.get("individual_digits"):
        return (_DIGITS,)
    if described["type"] == "Split" and described["behavior"] == "Isolated" and not described.get("invert"):
        return (str(described["pattern"].get("Regex", "?")),)
    return ("?",)


def _scores(writer: gguf.GGUFWriter, described: Mapping[str, Any]) -> dict[str, float]:
    """The worth of each token of a sentencepiece tokenizer: the earlier it is merged, the more.

    Raises SpecError where spaces are written otherwise than sentencepiece does.
    """
    text = json.dumps([described.get("normalizer"), described.get("pre_tokenizer")], ensure_ascii=False)
    if "▁" not in text or "Split" in text:
        raise SpecError(
            f"The model's tokenizer writes spaces in a way that is not known of llama.cpp; {_ADVICE}."
        )
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_add_space_prefix("Prepend" in text or '"always"' in text or '"first"' in text)
    scores: dict[str, float] = {}
    for rank, pair in enumerate(described["model"]["merges"]):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        scores.setdefault(left + right, -float(rank))
    return scores
