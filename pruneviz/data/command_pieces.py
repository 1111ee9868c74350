"""What commands for rows of the papers' tables are put together from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

#: Column -> cell of one row of a table.
Row = Mapping[str, str]


@dataclass(frozen=True)
class Command:
    """What makes a row here.

    Attributes:
        text: to be typed into a shell; empty where nothing here makes the row.
        note: where it differs from the paper's run, or why there is none.
    """

    text: str = ""
    note: str = ""

    def noted(self, note: str) -> Command:
        """The same with something more to say."""
        return replace(self, note=f"{self.note}; {note}" if self.note else note)


#: As a table calls a model -> what is read for it. Folders are to be made first, see `TO_MAKE`.
MODELS = {
    "LLaMA-7B": "huggyllama/llama-7b",
    "LLaMA-13B": "huggyllama/llama-13b",
    "LLaMA-2-7B": "meta-llama/Llama-2-7b-hf",
    "LLaMA-2-13B": "meta-llama/Llama-2-13b-hf",
    "LLaMA-3-8B": "meta-llama/Meta-Llama-3-8B",
    "Mistral-7B": "mistralai/Mistral-7B-v0.1",
    "Vicuna-7B": "vicuna-7b-v0",
    "GPT-2": "openai-community/gpt2",
    "Bloom-7b1": "bigscience/bloom-7b1",
    "Baichuan-7B": "baichuan-inc/Baichuan-7B",
    "StableLM-3B": "stabilityai/stablelm-tuned-alpha-3b",
}
#: Model -> what has to be known before its commands run.
TO_MAKE = {
    "Vicuna-7B": "vicuna-7b-v0 is a folder to be made: lmsys/vicuna-7b-delta-v0 added to LLaMA-7B",
    "Baichuan-7B": "its code comes from the hub and was written for an older transformers",
}
#: Both perplexities as LLM-Pruner's code takes them, and the seven tasks.
AS_LLM_PRUNER = "--ppl wikitext2 --ppl-also ptb --ppl-protocol llm-pruner --tasks commonsense"
AS_NUTEPRUNE = "--ppl wikitext2 --ppl-protocol nuteprune --tasks commonsense"
#: LLM-Pruner's recovery (its Appendix B.2): two epochs of Alpaca.
TUNED = "--recover lora --preset paper --recover-data alpaca"


def evaluate(model: str, *options: str) -> Command:
    """Measure the model that a table calls by this name."""
    return _command("evaluate", model, *options)


def prune(model: str, *options: str) -> Command:
    """Prune the model that a table calls by this name; empty options are left out."""
    return _command("prune", model, *options)


def none(why: str) -> Command:
    """For a row that nothing here makes."""
    return Command(note=f"not here: {why}")


def _command(goal: str, model: str, *options: str) -> Command:
    remote = "--trust-remote-code" if model == "Baichuan-7B" else ""
    words = ["python -m core", goal, MODELS[model], *options, remote]
    return Command(" ".join(word for word in words if word), TO_MAKE.get(model, ""))
