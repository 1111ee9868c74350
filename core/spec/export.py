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
    )
