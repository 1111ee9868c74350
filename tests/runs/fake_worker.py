"""A real worker process with small work, steered by the run's name and by files in its directory."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from core.errors import DataError
from core.runs import launch
from core.runs.artifacts import read_spec
from core.runs.recorder import Recorder
from core.stages.worker import main


def work(run_dir: Path, recorder: Recorder) -> None:
    """`wait` goes on until the file `go` is there; `fail` fails; `bug` raises; anything else ends at once."""
    recorder.begin({"load": "Loading", "evaluate": "Measuring"})
    recorder.stage("evaluate")
    name = read_spec(run_dir).name
    with (run_dir / "executed").open("a") as file:
        file.write("once\n")
    if name == "fail":
        raise DataError("The text is empty; give another one.")
    if name == "bug":
        raise ZeroDivisionError("nobody expected this")
    step = 0
    while name == "wait" and not (run_dir / "go").exists():
        step += 1
        recorder.progress(step, 10**6)
        time.sleep(0.02)


if __name__ == "__main__":
    launch.WORKER = (sys.executable, __file__)  # the next in the queue gets small work, too
    sys.exit(main(Path(sys.argv[1]), work))
