"""How a result is measured."""

from __future__ import annotations

from dataclasses import dataclass

from core.spec.checks import require as _require
from core.spec.checks import require_whole as _require_whole


@dataclass(frozen=True)
class EvalSpec:
    """How the result is measured: perplexity on `text` in windows of `window` tokens, `tokens` in all.

    `prompts` are completed by the dense and the pruned model and kept in `samples.json`.

    Attributes:
        tasks: benchmarks to score: suites, groups or tasks of lm-eval's.
        limit: questions a task, the first ones; None for all. num_fewshot: examples in the prompt, None
            for what the papers or the task say.
        benchmarks_dir: folder with `<task>/<split>.jsonl`; None reads from the hub.
        int8: measure the models with weights in 8 bits, too, beside those as they are.
    """

    text: str = "bundled"
    window: int = 256
    tokens: int = 4096
    prompts: tuple[str, ...] = (
        "The capital of France is",
        "Explain in one sentence why the sky is blue.",
        "Once upon a time, in a small village,",
    )
    max_new_tokens: int = 48
    efficiency: bool = True
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    num_fewshot: int | None = None
    benchmarks_dir: str | None = None
    int8: bool = False

    def __post_init__(self) -> None:
        measured = self.efficiency or not self.int8
        _require(measured, "int8", self.int8, "measured together with efficiency; leave out --no-efficiency")
        for name, least in (("limit", 1), ("num_fewshot", 0)):
            if getattr(self, name) is not None:
                _require_whole(name, getattr(self, name), least)
        _require_whole("window", self.window, 8)
        _require_whole("tokens", self.tokens, self.window)
        _require_whole("max_new_tokens", self.max_new_tokens, 1)
