"""How a result is measured."""

from __future__ import annotations

from core.checked import checked
from core.option import option
from core.spec.checks import require


@checked
class EvalSpec:
    """How the result is measured: perplexity, answers, speed and benchmarks.

    `prompts` are completed by the dense and the pruned model and kept in `samples.json`.
    """

    text: str = option(
        "bundled",
        "What perplexity is measured on: bundled, a file, or a hub data set.",
        title="Text for perplexity",
        nonempty=True,
        called="text for perplexity",
        wanted="bundled, a file, or a hub data set",
        flag="--ppl",
        metavar="TEXT",
    )
    window: int = option(256, "Tokens in each window of perplexity.", ge=8, unit="tokens")
    tokens: int = option(4096, "Tokens of perplexity in all.", unit="tokens")
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
    )
    int8: bool = option(False, "Measure latency and memory with weights in 8 bits, too.")

    def __post_init__(self) -> None:
        measured = self.efficiency or not self.int8
        require(measured, "int8", self.int8, "measured together with efficiency; leave out --no-efficiency")
        wanted = f"a whole number from {self.window} up, which is the window"
        require(self.tokens >= self.window, "tokens", self.tokens, wanted)
