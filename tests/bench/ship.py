"""What llama.cpp makes of a pruned demo model: how fast, how large, how close to torch, how long to write."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.figure import Figure

ROUNDS, PREFILL, DECODE = 3, 384, 48
PROMPT = "The capital of France is Paris, and its river is the Seine. In the north of the country"


#: How a cut by half or by a fifth is told: its key in `_models`, and its words.
HALVES = {"50": "uneven heads", "50 groups": "whole key-value heads"}
FIFTHS = {"20": "in uneven heads", "20 groups": "in whole key-value heads", "run": "as prune takes it"}


def run() -> list[Figure]:
    """The dense model and cuts of 20 and 50 % of every group alike, which are about shapes.

    How close files are to torch is told of what `prune` makes of the demo model.
    """
    with tempfile.TemporaryDirectory() as folder:
        models = _models(Path(folder))
        files: dict[tuple[str, str], Path] = {}
        seconds = {}
        for name, model in models.items():
            for kind in ("f16", "q8_0"):
                began = time.perf_counter()
                files[name, kind] = _written(model, Path(folder) / f"{name}-{kind}", kind)
                seconds[name, kind] = time.perf_counter() - began
        size = {name: path.stat().st_size for (name, kind), path in files.items() if kind == "q8_0"}
        speeds = _speeds({key: path for key, path in files.items() if key[0] in ("dense", *HALVES)})
        close = _close(models["run"], files["run", "f16"])
    slowest = Figure(
        "writing a GGUF of the demo model", max(seconds.values()), "at most", 10, "s", "the slowest"
    )
    return [*_faster(speeds), *_smaller(size), slowest, _closer(*close)]


def _faster(speeds: dict[Any, tuple[float, float]]) -> list[Figure]:
    decode, prefill = ({name: speeds[name, kind][which] for name in ("dense", *HALVES)}
                       for kind, which in (("f16", 1), ("q8_0", 0)))  # fmt: skip
    return [
        _ratio(f"llama.cpp, {what}, 50 % cut in {heads} / dense", told[name], told["dense"], goal, "tokens/s")
        for what, told, goal in (("f16 decode", decode, 1.6), ("Q8_0 prefill", prefill, 1.9))
        for name, heads in HALVES.items()
    ]


def _smaller(size: dict[str, int]) -> list[Figure]:
    return [
        Figure(
            f"size, Q8_0 of a 20 % cut {what} / dense", size[name] / size["dense"], "at most", 0.85, "x",
            f"{size[name] / 1e6:.1f} MB / {size['dense'] / 1e6:.1f} MB",
        )
        for name, what in FIFTHS.items()
    ]  # fmt: skip


def _closer(mean: float, most: float, parted: int, behind: float) -> Figure:
    return Figure(
        "llama.cpp, f16 of what prune leaves at 20 %, mean KL from torch", 1e4 * mean, "at most", 1, "e-4",
        f"{most:.1e} at most; {parted} of 24 greedy tokens are not torch's, by {behind:.2g} at most",
    )  # fmt: skip


def _ratio(name: str, ours: float, dense: float, goal: float, unit: str) -> Figure:
    return Figure(name, ours / dense, "at least", goal, "x", f"{ours:.1f} / {dense:.1f} {unit}")


def _models(folder: Path) -> dict[str, Path]:
    """Folders of the dense demo model, of four cuts, and of a run of `prune`."""
    import copy

    from core.graph.discover import discover
    from core.models import load, saved
    from core.plan.allocation import allocate
    from core.plan.cost import with_costs
    from core.plan.records import PruningPlan
    from core.surgery.operate import operate

    loaded = load.load("demo", device="cpu")
    graph = discover(loaded.model, name="demo")
    groups = graph.of_kind("query_head", "ffn_channel")
    plans = {"dense": with_costs(graph, PruningPlan({}, "demo", "none"), groups)}
    for percent in (20, 50):
        for name, heads in (("", "query_head"), (" groups", "kv_group")):
            plans[f"{percent}{name}"] = allocate(
                graph,
                None,
                sparsity=percent / 100,
                kinds=(heads, "ffn_channel"),
                method="evenly",
                model="demo",
            )
    for name, plan in plans.items():
        model = operate(copy.deepcopy(loaded.model), graph, plan.removed)
        saved.save(model, loaded.tokenizer, graph, plan, folder / name)
    return {**{name: folder / name for name in plans}, "run": _pruned(folder)}


def _pruned(folder: Path) -> Path:
    """The model that `prune` leaves of the demo without being told how."""
    words = "-m core prune demo --sparsity 0.2 --samples 4 --tokens 1024 --no-efficiency --json"
    told = subprocess.run(
        [sys.executable, *words.split(), "--ppl-also", "", "--prompt", "", "--runs-dir", folder / "runs"],
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return Path(json.loads(told.stdout)["run_dir"]) / "model"


def _written(model: Path, out: Path, kind: str) -> Path:
    from core.models.demo import demo_gguf
    from core.ship import gguf
    from core.ship.records import Parcel, subject_of
    from core.spec.export import ExportSpec

    out.mkdir()
    spec = ExportSpec(to="gguf", type=kind, tokenizer=str(demo_gguf()))
    gguf.write(Parcel(subject_of(model), model, out, spec, False, print, lambda *_: None))
    return next(out.iterdir())


def _speeds(files: dict[Any, Path]) -> dict[Any, tuple[float, float]]:
    """Tokens per second of prefill and of decode, the best of several rounds by turns, on two threads."""
    from tests.ship.llama import Llama

    best: dict[Any, tuple[float, float]] = {}
    for _ in range(ROUNDS):
        for key, path in files.items():
            llama = Llama(path, PREFILL + DECODE, threads=2)
            began = time.perf_counter()
            llama.decode([100 + i for i in range(PREFILL)], every=False)
            read = time.perf_counter()
            for place in range(PREFILL, PREFILL + DECODE):
                llama.decode([100 + place], place)
            now = PREFILL / (read - began), DECODE / (time.perf_counter() - read)
            before = best.get(key, (0.0, 0.0))
            best[key] = max(before[0], now[0]), max(before[1], now[1])
    return best


def _close(folder: Path, path: Path) -> tuple[float, float, int, float]:
    """Mean and largest KL in a prompt; how many of 24 greedy tokens fell behind torch's, and by what."""
    import torch

    from core.models import saved
    from tests.ship.llama import Llama
    from tests.ship.made import fallen_behind

    model, tokenizer, _ = saved.load(folder, dtype=torch.float32)
    assert tokenizer is not None
    tokens = tokenizer(PROMPT).input_ids
    with torch.no_grad():
        ours = model(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
    theirs = torch.from_numpy(Llama(path, 256).decode(tokens)).double().log_softmax(-1)
    behind = fallen_behind(model, tokens, Llama(path, 256).greedy(tokens, 24))
    kl = (ours.exp() * (ours - theirs)).sum(-1)
    return float(kl.mean()), float(kl.max()), int((behind > 0).sum()), float(behind.max())
