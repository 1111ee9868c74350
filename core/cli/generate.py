"""`generate`: complete a prompt."""

from __future__ import annotations

from typing import Annotated

import typer

from core.cli import options
from core.cli.ask import RUNS, source_of
from core.cli.terminal import emit, stdout_kept_clean
from core.runs.request import FIELDS, Given, ask


@options.takes("generate")
def generate(
    model: options.ModelOrRun,
    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="The text to go on from.")],
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", metavar="NUMBER", help="0 takes the likeliest token; higher draws at random."
        ),
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(
            "--top-p", metavar="SHARE", help="Draw among the likeliest tokens that share this probability."
        ),
    ] = 1.0,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put the prompt into the model's chat template.")
    ] = False,
    given: Given = FIELDS,
    runs_dir: options.RunsDir = RUNS,
    as_json: options.Json = False,
) -> None:
    """Complete a prompt, greedily unless told otherwise."""
    with stdout_kept_clean():
        from core.evaluate import generation
        from core.models import load as models

        spec = ask("evaluate", source_of(runs_dir, model), given)
        loaded = models.load(**vars(spec.model))
        answer = generation.generate(
            loaded.model,
            loaded.tokenizer,
            prompt,
            max_new_tokens=spec.evaluate.max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=spec.seed,
            chat=chat,
        )
    emit({"text": answer.text, "tokens_per_second": answer.tokens_per_second}, as_json, [answer.text])
