"""What can be said of vLLM without running it. There is nothing to write: it reads a folder for transformers.

Its own models build all layers from one config. Two ways lead around that. Its Transformers backend builds
what `AutoModel` gives, layers of any width, but asks one number of query and of key-value heads of the
config, for its own attention and cache. Nemotron-NAS has `block_configs`: widths and shares of each layer,
all with one number of query heads. Sources: vLLM, `model_executor/models/transformers` and `nemotron_nas.py`.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from core.ship.records import Route, Subject, Verdict
from core.spec.export import ExportSpec

#: Nemotron-NAS is a Llama; its widths are 2/3 of a multiplier of the hidden width, rounded up to these.
_NAS, _NAS_WIDTH = "llama", 256


def verdict(subject: Subject) -> Verdict:
    """Whether vLLM serves a plan's layers, by which way, or what would make it."""
    if subject.gaps:
        return Verdict(
            False,
            f"layer {subject.gaps[0]} has lost a whole block, and its models build all layers alike, with "
            "attention and a feed-forward network each. Leave whole blocks in.",
        )
    heads = {(len(layer.heads.query), tuple(layer.heads.kv_index)) for layer in subject.layers if layer.heads}
    uniform = all(layer.heads.uniform for layer in subject.layers if layer.heads)
    if len(heads) > 1 or not uniform:
        return Verdict(
            False,
            "its attention takes one number of query heads for all layers, and as many for each key-value "
            "head; here they differ. Prune with --uniform-heads or --uniform, or only FFN channels.",
        )
    if subject.plan.biases:
        where = f"its own {subject.family} has no bias at {subject.plan.biases[0]}."
        return Verdict(False, f"{where} Prune with --reconstruct none.")
    if subject.shorter and (len(subject.widths) > 1 or subject.narrower):
        return Verdict(
            False,
            "whole layers are gone, and the config of those that stay cannot say how they differ. Prune with "
            "--uniform, or leave whole layers in.",
        )
    if len(subject.widths) > 1:
        whole = all(width % _NAS_WIDTH == 0 for width in subject.widths)
        nas = subject.family == _NAS and not subject.narrower and whole
        also = f", or as Nemotron-NAS, whose block_configs hold widths of whole {_NAS_WIDTH}s" if nas else ""
        return Verdict(
            True,
            "heads are alike in all layers, widths are not: with --model-impl transformers and "
            f"--trust-remote-code{also}. This was not run.",
        )
    if subject.narrower:
        return Verdict(
            True, "layers are alike; norms are rescaled: with --model-impl transformers. This was not run."
        )
    return Verdict(True, f"all layers are alike, an ordinary {subject.family}. This was not run.")


def use(subject: Subject, folder: Path, options: ExportSpec) -> tuple[str, ...]:
    """The command that serves it."""
    more = " --model-impl transformers --trust-remote-code" if any(folder.glob("*.py")) else ""
    return (f"vllm serve {shlex.quote(str(folder))}{more}",)


ROUTE = Route("vllm", "vLLM", verdict, use)
