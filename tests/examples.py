"""`make examples`: the runs that a first visit shows, made from the demo model into assets/examples/.

`make examples ARGS="NAME ..."` makes some of them. A finished run of that name in the runs folder is taken as
it is. The texts that a command names are files of the folder it is typed in. What is copied is small and of
no machine: no weights, checkpoints or logs, no process, host or path.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.files import json_text, make_folder, write_json, write_text
from core.results.activations import ACTIVATIONS
from core.results.efficiency import EFFICIENCY
from core.results.masks import MASKS
from core.results.perplexity import PERPLEXITY
from core.results.scores import SCORES
from core.results.sensitivity import SENSITIVITY
from core.results.similarity import SIMILARITY
from core.results.sweep import SWEEP
from core.results.tasks import BENCHMARKS
from core.results.widths import WIDTHS
from core.runs.artifacts import EVENTS, GROUPS, METRICS, PLAN, SAMPLES, SPEC, read_spec
from core.runs.status import STATUS, read_status
from core.runs.watch import list_runs
from pruneviz.data.examples import MANIFEST
from tests.browser.driver import ROOT

_READ = "--ppl wikitext2.valid.raw --window 1024 --tokens 6144 --no-efficiency"
_MEASURED = f"{_READ} --tasks bundled_capitals"
#: Name of an example -> what people read of it, and what is asked for after `python -m core`.
COMMANDS = {
    "example-analysis": (
        "What the demo model is made of",
        "explore demo --criterion taylor_second --criterion taylor_first --criterion ifv --criterion wanda "
        "--criterion l2 --ratio 0.15,0.35,0.6,0.85 --ratio-by wanda",
    ),
    "example-sweep": (
        "How a cut is spread over the layers",
        "sweep demo --methods ifv --sparsities 0.2,0.4 --scopes al_am,local,global,searched "
        "--reconstructs bias --search-rounds 0 --calibration c4_sample.jsonl "
        "--ppl wikitext2.valid.raw --window 1024 --tokens 12288",
    ),
    "example-taylor_first-20": (
        "First-order Taylor, every layer alike",
        f"prune demo --method taylor_first --sparsity 0.2 {_MEASURED}",
    ),
    "example-recommended-20": (
        "The recommended recipe",
        f"prune demo --sparsity 0.2 {_MEASURED}",
    ),
    "example-nuteprune-20": (
        "Masks learned by NutePrune",
        "prune demo --method nuteprune --preset demo --sparsity 0.2 --set last=0.8 --set measure_every=75 "
        f"--calibration c4_sample.jsonl {_READ} --watch 0",
    ),
}
#: What a page reads of a run by its goal; it reads groups and scores of the analysis alone.
ARTIFACTS = {
    "explore": (GROUPS, SIMILARITY, SCORES, ACTIVATIONS, SENSITIVITY),
    "sweep": (SWEEP, PERPLEXITY),
    "prune": (METRICS, PLAN, WIDTHS, SAMPLES, PERPLEXITY, EFFICIENCY, BENCHMARKS, MASKS),
}
#: Of the events, those that a page draws nothing of.
SKIPPED = ("progress", "artifact")
#: Of all files together, for they are in every checkout.
MOST_BYTES = 3 * 2**20


def main() -> None:
    """Make the runs that are missing, copy what a page shows of them, and write down every file's sum."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("names", nargs="*", metavar="NAME", help=", ".join(COMMANDS))
    arguments.add_argument("--runs-dir", type=Path, default=ROOT / "runs")
    arguments.add_argument("--out", type=Path, default=ROOT / "assets" / "examples")
    given = arguments.parse_args()
    for name in given.names or COMMANDS:
        publish(made(given.runs_dir, *COMMANDS[name]), given.out / name)
    sums = seal(given.out)
    size = sum((given.out / file).stat().st_size for file in sums)
    print(f"{given.out}: {len(sums)} files, {size:,} bytes")


def made(runs_dir: Path, name: str, command: str) -> Path:
    """The newest finished run of this name, or a new one. Raises CalledProcessError if that fails."""
    run = finished(runs_dir, name)
    if run is None:
        typed = ["-m", "core", *shlex.split(command), "--name", name, "--runs-dir", str(runs_dir)]
        subprocess.run([sys.executable, *typed], cwd=ROOT, check=True)
        run = finished(runs_dir, name)
    assert run is not None, f"{command} left no finished run in {runs_dir}"
    return run


def finished(runs_dir: Path, name: str) -> Path | None:
    """The newest finished run of this name."""
    runs = (run for run in list_runs(runs_dir) if (run / SPEC).exists())
    return next((r for r in runs if read_spec(r).name == name and read_status(r).state == "finished"), None)


def publish(run: Path, to: Path) -> None:
    """Copy what a page shows. Raises ValueError if a file names a place on this machine."""
    make_folder(to)
    for old in to.iterdir():
        old.unlink()
    for name in ARTIFACTS[read_spec(run).goal]:
        if (run / name).exists():
            _copy(run / name, to / name)
    _copy(run / SPEC, to / SPEC)
    status = replace(read_status(run), pid=None, pid_started=None, host="")
    write_json(to / STATUS, vars(status))
    lines = (run / EVENTS).read_text(encoding="utf-8").splitlines(keepends=True)
    write_text(to / EVENTS, "".join(line for line in lines if json.loads(line)["type"] not in SKIPPED))
    places = [str(place).encode() for place in (ROOT, Path.home(), run.parent.absolute())]
    for path in to.iterdir():
        if any(place in path.read_bytes() for place in places):
            raise ValueError(f"{path} names a folder of this machine")


def _copy(path: Path, to: Path) -> None:
    """JSON without blanks, and of a path its last part, such as the file that questions were read from."""
    if path.suffix == ".json":
        write_text(to, json.dumps(_of_no_machine(json.loads(json_text(path))), separators=(",", ":")))
    else:
        to.write_bytes(path.read_bytes())


def _of_no_machine(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _of_no_machine(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_of_no_machine(part) for part in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def seal(folder: Path) -> dict[str, str]:
    """Write `MANIFEST`: file -> SHA-256, for all files of all examples."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.glob("*/*"))}
    sums = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    write_json(folder / MANIFEST, sums)
    return sums


if __name__ == "__main__":
    main()
