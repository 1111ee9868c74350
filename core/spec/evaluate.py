"""How a result is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.checked import checked
from core.option import option
from core.spec.checks import require
from core.spec.texts import MEASURE_ON

WORKBENCH = "workbench"


@dataclass(frozen=True)
class Protocol:
    """How a text is cut into the windows of perplexity.

    Attributes:
        title: whose it is; about: what it does, for people.
        window: tokens in each window; tokens: in all, None for the whole text.
        stream: whether windows are cut from one stream of tokens, whose first alone is a begin-of-text token,
            if the tokenizer has one; otherwise every window begins with it.
    """

    title: str
    about: str
    window: int
    tokens: int | None
    stream: bool


#: The papers' are as released: `LLMPruner/evaluator/ppl.py` and `datasets/ppl_dataset.py` of LLM-Pruner, and
#: `eval_ppl.py` of NutePrune, which differ in the length of a window only. Every token but the first of a
#: window counts alike, and what is left over at the end of the text is not scored.
PROTOCOLS = {
    WORKBENCH: Protocol(
        "Workbench",
        "A begin token before each window of 256; the first 4,096 tokens",
        256,
        4096,
        stream=False,
    ),
    "llm-pruner": Protocol(
        "LLM-Pruner", "As LLM-Pruner: one stream cut every 128 tokens; the whole text", 128, None, stream=True
    ),
    "nuteprune": Protocol(
        "NutePrune",
        "As NutePrune: one stream cut every 2,048 tokens; the whole text",
        2048,
        None,
        stream=True,
    ),
}


@checked
class EvalSpec:
    """How the result is measured: perplexity, answers, speed and benchmarks.

    `prompts` are completed by the dense and the pruned model and kept in `samples.json`.
    """

    text: str = option(
        "bundled",
        "What perplexity is measured on: bundled, factbook, a named data set (its test split), a file, or a "
        "hub data set (owner/name:config:split:column).",
        title="Text for perplexity",
        nonempty=True,
        called="text for perplexity",
        wanted="bundled, factbook, a named data set, a file, or a hub data set",
        examples=MEASURE_ON,
        flag="--ppl",
        metavar="TEXT",
        place=True,
    )
    window: int | None = option(
        None,
        "Tokens in each window of perplexity.",
        default_text="the protocol's, 256 of the workbench's",
        ge=8,
        unit="tokens",
    )
    tokens: int | None = option(
        None,
        "Tokens of perplexity in all; a text with fewer is refused.",
        default_text="the protocol's, at most 4,096 of the workbench's",
        ge=8,
        unit="tokens",
    )
    prompts: tuple[str, ...] = option(
        (
            "The capital of France is",
            "Explain in one sentence why the sky is blue.",
            "Once upon a time, in a small village,",
        ),
        "A prompt to complete; may be repeated; '' for none.",
        default_text="three",
        flag="--prompt",
        repeated=True,
    )
    max_new_tokens: int = option(48, "Tokens to generate for each prompt.", ge=1, unit="tokens")
    efficiency: bool = option(True, "Measure latency and memory.")
    tasks: tuple[str, ...] = option(
        (),
        "Benchmarks: commonsense (seven and their average), mmlu, bbh, bundled_capitals, "
        "bundled_next_sentence, or any lm-eval task, with commas.",
        default_text="none",
    )
    limit: int | None = option(
        None, "Questions of each task, the first ones.", default_text="all", ge=1, unit="questions"
    )
    num_fewshot: int | None = option(
        None,
        "Solved examples before each question of a task.",
        default_text="MMLU 5, BBH 3, else what the task says",
        ge=0,
        unit="examples",
    )
    benchmarks_dir: str | None = option(
        None,
        "Folder to read the questions of tasks from, as <task>/<split>.jsonl.",
        default_text="from the hub",
        metavar="FOLDER",
        place=True,
    )
    int8: bool = option(
        False,
        "Measure latency and memory in 8 bits, too: LLM.int8() where bitsandbytes runs, else weights only.",
    )
    protocol: str = option(
        WORKBENCH,
        "How the text is cut into windows.",
        title="Protocol of perplexity",
        choices={name: usual.about for name, usual in PROTOCOLS.items()},
        called="ppl-protocol",
        flag="--ppl-protocol",
    )
    also: tuple[str, ...] = option(
        ("factbook",),
        "More texts for perplexity, best of other domains, with commas; empty for none. Of each as many "
        "tokens are read as of the first, if it has them.",
        title="More texts for perplexity",
        flag="--ppl-also",
        place=True,
    )
    watch: int = option(
        512,
        "Tokens of each text for perplexity that are followed while a model is trained, at least a window; 0 "
        "for none.",
        ge=0,
        unit="tokens",
        flag="--watch",
    )

    def __post_init__(self) -> None:
        measured = self.efficiency or not self.int8
        require(measured, "int8", self.int8, "measured together with efficiency; leave out --no-efficiency")
        length = self.window_length
        wanted = f"a whole number from {length} up, which is the window"
        require(self.tokens is None or self.tokens >= length, "tokens", self.tokens, wanted)

    @property
    def window_length(self) -> int:
        """Tokens in each window: as asked for, or the protocol's."""
        return self.window or PROTOCOLS[self.protocol].window

    def cutting(self) -> dict[str, Any]:
        """The arguments of `core.models.windows.evaluation_windows`."""
        return {"protocol": self.protocol, "window": self.window, "tokens": self.tokens}

    @property
    def texts(self) -> tuple[str, ...]:
        """What perplexity is measured on, each text once, the first one first."""
        return tuple(dict.fromkeys((self.text, *self.also)))
