"""One file for llama.cpp."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from core.errors import ModelError, SpecError
from core.results.words import several
from core.ship.gguf_layout import Layout, layout
from core.ship.records import Parcel, Route, Subject, Verdict, Written
from core.spec.export import ExportSpec

#: Rows of a K-quant are whole multiples of this.
_K_BLOCK = 256


def verdict(subject: Subject) -> Verdict:
    """Whether llama.cpp can run a model of these shapes, and what it costs to make them even."""
    try:
        laid = layout(subject)
    except SpecError as error:
        return Verdict(False, str(error))
    holds = f"as a file of architecture {laid.architecture}."
    return Verdict(True, " ".join([holds, *_prices(subject, laid)]))


def _prices(subject: Subject, laid: Layout) -> list[str]:
    """What stands in the file beside the model, in words."""
    queries = sum(slots.extra[0] for slots in laid.slots)
    keys = sum(slots.extra[1] for slots in laid.slots)
    channels = sum(laid.ffn) - sum(sum(layer.ffn) for layer in subject.layers)
    hidden = laid.wide - laid.hidden
    counts = {"query head": queries, "FFN channel": channels, "hidden channel": hidden}
    parts = [f"{several(count, what)} of zeros" for what, count in counts.items() if count]
    parts += [f"{several(keys, 'key-value head')} once more"] if keys else []
    return [f"To be even and in whole blocks, it holds {', '.join(parts)}."] if parts else []


def write(parcel: Parcel) -> Written:
    """Write the file. Raises SpecError for weights, norms or a tokenizer that llama.cpp cannot have."""
    import gguf

    from core.files import written_beside
    from core.models import saved
    from core.ship import gguf_keys, gguf_tensors, gguf_tokens

    options = parcel.options
    given = tokenizer_file(options)
    laid = layout(parcel.subject, pad=options.pad_to, sparing=options.uneven_heads)
    model, _, _ = saved.load(parcel.model, trust_remote_code=parcel.trust_remote_code)
    path = parcel.out / file_name(parcel.subject, options.type)
    with written_beside(path) as beside:
        writer = gguf.GGUFWriter(beside, laid.architecture)
        _name(writer, parcel.subject)
        notes = gguf_keys.add_sizes(writer, model, laid, options.type)
        entries = [
            *gguf_keys.add_positions(writer, model, laid),
            *gguf_tensors.entries(model, laid, options.type),
        ]
        tokens = gguf_keys.tokens_of(model)
        notes.append(gguf_tokens.add_tokenizer(writer, parcel.model, tokens, given))
        _write_tensors(writer, entries, parcel)
    return Written((*_prices(parcel.subject, laid), *_about_k_quants(laid), *notes))


def file_name(subject: Subject, kind: str) -> str:
    """The file's name: that of the model, and the type of its matrices, as llama.cpp's own tools write it."""
    plain = re.sub(r"[^\w.-]+", "-", subject.plan.model.rpartition("/")[2] or subject.family)
    return f"{plain}-pruned-{kind.upper()}.gguf"


def _name(writer: Any, subject: Subject) -> None:
    plan = subject.plan
    writer.add_name(f"{plan.model or subject.family}, pruned")
    writer.add_description(f"{plan.sparsity_total:.1%} of all parameters pruned by {plan.method}")


def _write_tensors(writer: Any, entries: list[Any], parcel: Parcel) -> None:
    """Write all tensors, one in memory at a time."""
    for entry in entries:
        writer.add_tensor_info(entry.name, entry.shape, None, entry.bytes, raw_dtype=entry.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for number, entry in enumerate(entries, start=1):
        writer.write_tensor_data(entry.array())
        parcel.progress(number, len(entries), "tensors")
    writer.close()


def use(subject: Subject, folder: Path, options: ExportSpec) -> tuple[str, ...]:
    """Commands of llama.cpp."""
    path = folder / file_name(subject, options.type)
    name, smaller = (shlex.quote(str(each)) for each in (path, path.with_stem(_quantised(path.stem))))
    return (
        f"llama-cli -m {name} -p 'The capital of France is' -n 24",
        f"llama-server -m {name}",
        *([f"llama-quantize {name} {smaller} Q4_K_M"] if options.type != "q8_0" else []),
    )


def _quantised(stem: str) -> str:
    return f"{stem.rpartition('-')[0]}-Q4_K_M"


def _about_k_quants(laid: Layout) -> list[str]:
    """Which rows a K-quant cannot hold, since llama.cpp then takes a larger type and says so in passing."""
    ragged = sum(width % _K_BLOCK > 0 for width in laid.ffn)
    parts = [f"{laid.wide} hidden channels"] if laid.wide % _K_BLOCK else []
    parts += [f"the FFN of {ragged} layers"] if ragged else []
    if not parts:
        return []
    return [
        f"K-quants take rows of whole multiples of {_K_BLOCK}: for {' and '.join(parts)} llama-quantize "
        "takes larger types (Q5_0 or Q8_0 in place of Q4_K and Q6_K)."
    ]


def tokenizer_file(options: ExportSpec) -> Path | None:
    """The GGUF file to take the tokenizer from, if one is named. Raises ModelError if there is none."""
    if options.tokenizer is None:
        return None
    path = Path(options.tokenizer).expanduser()
    if not path.is_file():
        raise ModelError(f"There is no file {path}; --tokenizer takes a GGUF file of the base model.")
    return path


def check_request(subject: Subject, model: Path, options: ExportSpec) -> None:
    """Raises ModelError where a named file is not there, SpecError where the tokenizer cannot be told."""
    import gguf

    from core.ship import gguf_tokens

    given = tokenizer_file(options)
    if subject.tokens is not None:
        gguf_tokens.add_tokenizer(gguf.GGUFWriter(None, "none"), model, subject.tokens, given)


ROUTE = Route("gguf", "llama.cpp", verdict, use, write, ready=check_request)
