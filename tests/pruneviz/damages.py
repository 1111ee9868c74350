"""A grammar of damaged run folders: a whole run, and what is done to its files, its status and its name."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from core.plan.records import Cost, PruningPlan
from core.results.activations import Activation, Activations, write_activations
from core.results.efficiency import keep_efficiency
from core.results.masks import MaskState, write_masks
from core.results.perplexity import Perplexity, keep_perplexities
from core.results.scores import write_scores
from core.results.sensitivity import Sensitivity, write_sensitivity
from core.results.similarity import Similarity, write_similarity
from core.results.sweep import Point, Sweep, write_sweep
from core.runs.artifacts import CHECKPOINT, EVENTS, LOG, MODEL, STOP
from core.runs.origin import ORIGIN
from core.runs.status import STATES, STATUS
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from tests.pruneviz.samples import FFN, HEADS, LAYERS, MEASURED, efficiency, graph, make_run
from tests.pruneviz.scored import task, write_benchmarks

PPL = {"ppl_pruned": 80.0, "ppl_recovered": 59.2, "recover_steps": 5, "recover_method": "lora",
       "ppl_stderr_before": 0.5, "calibration_text": "c4", "tasks_after": {"x": {"acc": 0.5}}}  # fmt: skip
EVENT_LINES: list[Any] = [
    ("stage", "load", {"index": 0, "stages": ["load"], "title": "Read"}),
    ("message", "load", {"text": "Warning: x", "level": "warning"}),
    *(("metric", "recover", {"name": "recover.loss", "step": step, "value": 2.0}) for step in (1, 2)),
    *(("metric", "train", {"name": "train.expected", "step": step, "value": 0.1}) for step in (1, 2)),
    *(("metric", "search", {"name": "search.front", "step": step, "value": 9.0}) for step in (10, 20)),
    *(("metric", "x", {"name": f"sensitivity.ffn.{at}", "step": 0, "value": 9.0}) for at in (0.2, 0.4)),
    ("progress", "recover", {"done": 1, "total": 2, "unit": "steps"}),
    ("done", "export", {"state": "finished"}),
]
#: What no field expects: wrong types, numbers past every range, half of a character, nesting, markup.
STRANGE: list[str] = [
    "null", "true", "[]", "{}", '""', '"x"', "-1", "0", "0.5", "1e308", "-1e308", "NaN", "Infinity",
    "-Infinity", "1" + "0" * 400, "-" + "9" * 30, "9" * 5000, '"\\ud800"', '"\\u0000"', '"%s"' % ("x" * 3000),
    '"<img src=x onerror=alert(1)>"', '"{{value}}"', '["a",1,null]', '{"a":{"b":[]}}', "[[[[1]]]]",
    "[" * 60 + "]" * 60, "[" * 3000 + "]" * 3000, '"../../etc/passwd"', '"/proc/self/mem"',
]  # fmt: skip
#: What stands in the place of a whole file.
BYTES: list[bytes] = [
    b"", b"{", b"null", b"[]", b"3", b"{}", b'"x"', b"\xff\xfe\x00\x01" * 8, b"\x00" * 100, b"[" * 100_000,
    b'{"a":' * 5000, '{"state": "queued"}'.encode("utf-16"), b"\xef\xbb\xbf{}", b"9" * 5000, b"NaN",
    (2**63 - 1).to_bytes(8, "little") + b"{}", (90 * 2**20).to_bytes(8, "little") + b"{", b"x\n" * 9999,
]  # fmt: skip
SPECIAL = ("link to a file", "link to itself", "link to nothing", "link to a run", "pipe", "folder", "socket")
NAMES = ("x" * 200, "<img src=x onerror=alert(1)>", "a b", "a'\"b", "a,b", "a&run=b", "%2e%2e", "-rf", "a\nb",
         "ü", "𝒳", os.fsdecode(b"\xff\xfe"), "{{value}}", "CON", "a;b", "..x", "~", "a\x1b[31m")  # fmt: skip


#: The run beside the damaged one, by its name the older of the two: the page reads the damaged one first.
WHOLE = "0-whole"


@dataclass(frozen=True)
class Damage:
    """What is done to one file: `how` names it, `at` says where, `value` what stands there then."""

    file: str
    how: str
    at: int = 0
    value: str | bytes = b""


def whole_run(runs_dir: Path, name: str, goal: str, **status: Any) -> Path:
    """A run with every artifact that any run leaves."""
    asked = RunSpec(goal=goal, prune=PruneSpec("l2", 0.2), recover=RecoverSpec("lora"))  # type: ignore[arg-type]
    path = make_run(runs_dir, name, asked, metrics={**MEASURED, **PPL}, events=EVENT_LINES, log="a\nb\n",
                    with_graph=True, **status)  # fmt: skip
    plan = PruningPlan(
        {"L00.ffn_channel": (1, 2)}, before=Cost(10, 5, 2), after=Cost(8, 4, 2), params_in_scope=4
    )
    (path / "plan.json").write_text(plan.to_json())
    scores = {group.id: np.ones(group.units, np.float32) for group in graph().groups}
    write_scores(path, {"l2": scores, "l1": scores})
    write_similarity(path, Similarity(np.zeros((LAYERS, HEADS, HEADS), np.float32), [0, 1], 7, "speeches"))
    points = [{"layer": at, "kind": "ffn", "ratio": 0.5, "ppl": 10.0} for at in range(LAYERS)]
    write_sensitivity(path, Sensitivity(9.5, "t", 8, 64, "l2", points))
    write_sweep(path, Sweep(30.0, 1000, 900, "t", 256, 8192, "c4", 6, (
        Point("l2", 0.2, "global", "none", 0, 16, 0.2, 0.1, 900, 800, 31.0, 3.0, "", 0.4, 0.01),
        Point("l2", 0.4, "global", "none", 0, 16, error="out of reach"))))  # fmt: skip
    write_activations(path, Activations((Activation(0, "ffn", 1.0, 2.0, 3.0),), 64, "t"))
    read = Perplexity(30.0, 3.4, 1024, 256, losses=(3.4, 3.3, 3.5, 3.4))
    for side in ("dense", "pruned", "recovered"):
        keep_perplexities(path, side, [read])
    keep_efficiency(path, {"dense": efficiency([4.0, 5.0], [2.0, 3.0])})
    write_benchmarks(path, dense=[task("x", "11")], pruned=[task("x", "01")])
    factors = {"ffn_channel": np.ones((LAYERS, FFN), np.float32)}
    write_masks(path, MaskState(3, 9, factors, {"ffn_channel": np.ones((LAYERS, FFN), np.bool_)}))
    layer = {"query_heads": 3, "kv_heads": 2, "ffn": 9}
    left = {"layers": [{"layer": 0, **layer}], "dense": {**layer, "hidden": 16}, "hidden": 16}
    (path / "widths.json").write_text(json.dumps(left))
    (path / "samples.json").write_text(json.dumps([{"prompt": "P", "dense": {"text": "D"}}]))
    return path


#: Every file of such a run; those that all runs have come up most.
FILES = (
    STATUS, "spec.json", "metrics.json", EVENTS, STATUS, "spec.json", "metrics.json", LOG, "groups.json",
    "plan.json", "scores.safetensors", "similarity.safetensors", "masks.safetensors", "sensitivity.json",
    "sweep.json", "activations.json", "perplexity.json", "efficiency.json", "benchmarks.json", "widths.json",
    "samples.json", STOP, ORIGIN, MODEL, CHECKPOINT,
)  # fmt: skip

_value = st.tuples(
    st.sampled_from(FILES), st.sampled_from(["put", "put", "put", "drop", "add"]), st.integers(0, 400),
    st.sampled_from(STRANGE),
)  # fmt: skip
_bytes = st.tuples(
    st.sampled_from(FILES), st.just("bytes"), st.just(0), st.sampled_from(BYTES) | st.binary(max_size=40)
)
_cut = st.tuples(st.sampled_from(FILES), st.just("cut"), st.integers(1, 3000), st.just(b""))
_special = st.tuples(st.sampled_from(FILES), st.sampled_from(SPECIAL), st.just(0), st.just(b""))
damages = st.builds(lambda parts: Damage(*parts), _value | _value | _bytes | _cut | _special)
pids = st.sampled_from([None, -1, 0, 1, 2**31 - 1, os.getpid()])


@dataclass(frozen=True)
class Folder:
    """A run as the grammar tells it."""

    name: str
    goal: str
    state: str
    pid: int | None
    damages: tuple[Damage, ...]

    def make(self, runs_dir: Path) -> Path:
        """Write it."""
        now = time.time()
        path = whole_run(
            runs_dir, self.name, self.goal, state=self.state, pid=self.pid, pid_started=now, heartbeat=now
        )
        for damage in self.damages:
            inflict(path, damage)
        return path


folders = st.builds(
    Folder,
    st.just("20261122-231455-l2-20") | st.sampled_from(NAMES),
    st.sampled_from(["prune", "explore", "evaluate", "recover", "sweep", "export"]),
    st.sampled_from([*STATES, "finished", "finished"]),
    pids,
    st.lists(damages, min_size=1, max_size=3).map(tuple),
)


def inflict(run_dir: Path, damage: Damage) -> None:
    """Do this to one file of a run."""
    path = run_dir / damage.file
    if damage.how == "bytes":
        _replace(path, lambda: path.write_bytes(damage.value))  # type: ignore[arg-type]
    elif damage.how == "cut":
        if path.is_file():
            content = path.read_bytes()
            _replace(path, lambda: path.write_bytes(content[: len(content) * damage.at // 3000]))
    elif damage.how in SPECIAL:
        _replace(path, lambda: _special_file(path, damage.how))
    elif path.suffix in (".json", ".jsonl") and path.is_file() and not path.is_symlink():
        _inside(path, damage)


def _replace(path: Path, make: Callable[[], Any]) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    make()


def _special_file(path: Path, how: str) -> None:
    if how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            before = os.getcwd()
            os.chdir(path.parent)  # the name of a socket may be no longer than 107 bytes
            made.bind(path.name)
            os.chdir(before)
    else:
        where = {"link to a file": "/etc/passwd", "link to itself": path.name, "link to nothing": "/none"}
        path.symlink_to(where.get(how, path.parent.parent / WHOLE / path.name))


def _inside(path: Path, damage: Damage) -> None:
    """Put a strange value into JSON, take a key out or add one."""
    text = path.read_text(errors="replace")
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    number = damage.at % max(len(lines), 1)
    try:
        value = json.loads(lines[number])
    except (ValueError, RecursionError, IndexError):
        return
    places = list(_places(value))
    if not places:
        return
    holder, key = places[damage.at * 7 % len(places)]
    if damage.how == "drop":
        del holder[key]
    elif damage.how == "add" and isinstance(holder, dict):
        holder["never_heard_of"] = "@strange@"
    else:
        holder[key] = "@strange@"
    lines[number] = json.dumps(value).replace('"@strange@"', str(damage.value))
    path.write_text("\n".join(lines) + ("\n" if path.suffix == ".jsonl" else ""))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key) in JSON, the outer ones first."""
    inside = list(
        enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    )
    yield from ((value, key) for key, _ in inside)
    for _, part in inside:
        yield from _places(part)
