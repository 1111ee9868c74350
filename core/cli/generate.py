"""`generate`: complete a prompt."""

from __future__ import annotations

from typing import Annotated

import typer

from core.cli import options
from core.cli.ask import RUNS, source_of
from core.cli.terminal import emit, stdout_kept_clean
from core.spec.model import ModelSpec


def generate(
    model: options.ModelOrRun,
    prompt: Annotated[str, typer.Option("--prompt", help="The text to go on from.")],
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="At most so many tokens.")] = 48,
    temperature: Annotated[
        float, typer.Option("--temperature", help="0 takes the likeliest token; higher draws at random.")
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Draw among the likeliest tokens of this share.")
    ] = 1.0,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put the prompt into the model's chat template.")
    ] = False,
    seed: options.Seed = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    trust_remote_code: options.TrustRemoteCode = None,
    runs_dir: options.RunsDir = RUNS,
    as_json: options.Json = False,
) -> None:
    """Complete a prompt, greedily unless told otherwise."""
    with stdout_kept_clean():
        from core.evaluate import generation
        from core.models import load as models

        source = source_of(runs_dir, model)
        loaded = models.load(
            **vars(ModelSpec(source, device or "auto", dtype or "auto", bool(trust_remote_code)))
        )
        found = generation.generate(
            loaded.model,
            loaded.tokenizer,
            prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed or 0,
            chat=chat,
        )
    emit({"text": found.text, "tokens_per_second": found.tokens_per_second}, as_json, [found.text])
