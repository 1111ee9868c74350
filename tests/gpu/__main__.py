"""`make gpu`: the tests marked gpu, then the figures, and one JSON file with both.

It runs beside the torch that is there: nothing of torch or CUDA is installed or changed.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

from tests.bench import gpu

_RESULT = Path("gpu.json")


def main(arguments: list[str]) -> int:
    """Run the tier. Exit code 1 where a test fails; a missed goal is a figure, not a failure.

    Args:
        arguments: further ones for pytest.
    """
    import torch

    if not torch.cuda.is_available():
        print(f"This machine has no CUDA device for torch {torch.__version__}; the GPU tier needs one.")
        return 2
    began = time.time()
    tests = _tests(arguments)
    print(f"{tests['passed']} passed, {len(tests['failed'])} failed, {tests['skipped']} skipped\n")
    print("| figure | measured | goal | | what was measured |\n|---|---|---|---|---|")
    figures: list[dict[str, object]] = []
    result: dict[str, object] = {"machine": _machine(), "tests": tests, "figures": figures}
    for figure in gpu.run():
        print(figure.row(), flush=True)
        figures.append({**asdict(figure), "met": figure.met})
        _RESULT.write_text(json.dumps({**result, "seconds": time.time() - began}, indent=1))
    print(f"\n{_RESULT} has all of it.")
    return int(bool(tests["failed"]))


def _tests(arguments: list[str]) -> dict[str, object]:
    """What became of the tests marked gpu."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tests.xml"
        asked = ["-m", "gpu", "-q", f"--junitxml={path}", *arguments]
        subprocess.run([sys.executable, "-m", "pytest", *asked], check=False)
        cases = list(ElementTree.parse(path).iter("testcase")) if path.is_file() else []

    def are(kind: str) -> list[str]:
        return [
            f"{case.get('classname')}.{case.get('name')}" for case in cases if case.find(kind) is not None
        ]

    failed, skipped = [*are("failure"), *are("error")], are("skipped")
    return {"failed": failed, "skipped": len(skipped), "passed": len(cases) - len(failed) - len(skipped)}


def _machine() -> dict[str, object]:
    import torch
    import transformers

    card = torch.cuda.get_device_properties(0)
    return {
        "card": card.name, "memory_gib": card.total_memory / 2**30, "torch": torch.__version__,
        "cuda": torch.version.cuda, "transformers": transformers.__version__,
        "python": platform.python_version(),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
