"""In which format a pruned model is written for others to run, and where."""

from __future__ import annotations

from core.checked import checked
from core.option import option

#: Formats that can be written -> how a form calls them.
FORMATS = {
    "hf": "A folder for transformers",
    "gguf": "One file for llama.cpp",
    "onnx": "A graph for onnxruntime",
}


@checked
class ExportSpec:
    """In which format a pruned model is written, and where."""

    to: str = option("hf", "Format to write.", title="Format", choices=FORMATS, called="format", flag="--to")
    out: str | None = option(
        None,
        "Folder to write, which must not be there yet.",
        title="Folder",
        default_text="one in the export's own run, called as the format",
        metavar="FOLDER",
        place=True,
    )
    push_to: str | None = option(
        None,
        "Repository on the hub that takes the files, made as a private one if it is not there.",
        title="Repository on the hub",
        default_text="none",
        metavar="OWNER/NAME",
    )
    dry_run: bool = option(False, "Only say what would be uploaded.", title="Only say what would be uploaded")
    type: str = option(
        "f16",
        "Of the matrices in a GGUF file. Smaller types are made of an f16 file by llama.cpp itself.",
        title="Type of a GGUF file",
        choices={
            "f16": "16 bits",
            "q8_0": "8 bits, in blocks of 32",
            "f32": "32 bits, nothing rounded",
        },
    )
    pad: str = option(
        "32",
        "Fill widths of a GGUF file up with zeros to whole multiples: rows that are no whole blocks stay in "
        "16 bits.",
        title="Widths of a GGUF file",
        choices={
            "none": "As they are",
            "32": "Q8_0, Q4_0, Q5_0",
            "64": "64",
            "128": "128",
            "256": "K-quants",
        },
    )
    uneven_heads: str = option(
        "params",
        "Query heads that share key-value heads unevenly are laid out anew for a GGUF file; what that shall "
        "take least of.",
        title="Uneven heads in a GGUF file",
        choices={"params": "Size of the file", "cache": "Key-value cache"},
    )
    tokenizer: str | None = option(
        None,
        "GGUF file to copy the tokenizer from.",
        title="Tokenizer of a GGUF file",
        default_text="the GGUF file that the model came from, or what its tokenizer.json says",
        metavar="FILE",
        place=True,
    )

    @property
    def pad_to(self) -> int:
        """Widths are whole multiples of this."""
        return 1 if self.pad == "none" else int(self.pad)
