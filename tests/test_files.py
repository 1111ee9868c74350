"""Whatever a file in a run directory holds, its reader gives the record or says that the file is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError

from core.errors import ArtifactError, StorageError
from core.files import save_arrays, written_beside
from core.results.activations import ACTIVATIONS, Activation, Activations, read_activations
from core.results.efficiency import EFFICIENCY, Efficiency, Timing, read_efficiency
from core.results.masks import MASKS, read_masks
from core.results.perplexity import PERPLEXITY, Perplexity, read_perplexities
from core.results.scores import SCORES, read_scores
from core.results.sensitivity import SENSITIVITY, Sensitivity, read_sensitivity
from core.results.similarity import SIMILARITY, read_similarity
from core.results.sweep import SWEEP, Point, Sweep, read_sweep
from core.results.tasks import BENCHMARKS, Sample, TaskResult, read_benchmarks
from core.results.widths import WIDTHS, read_widths
from core.runs.artifacts import METRICS, SAMPLES, read_metrics, read_samples
from core.runs.status import STATUS, Status, read_status

NAN = float("nan")
POINT = {"layer": 0, "kind": "head", "ratio": 0.5, "ppl": 9.5, "unit": 1}
TIMING = Timing(1, 8, 8, 3, 2.0, 0.1, 4.0, 1.0, 0.1, 8.0, (2.0, 2.1), (1.0, 1.1))
TASK = TaskResult(
    "piqa", "piqa", {"acc": 0.5}, {"acc": None}, "acc", 1, "1", 0, None, "none", "hub",
    samples=(Sample("a", "b?", "yes", "no", False),),
)  # fmt: skip
LAYER = {"layer": 0, "query_heads": 4, "kv_heads": 2, "ffn": 8}
#: File -> its reader, and something that it holds.
WHOLE: dict[str, tuple[Callable[[Path], Any], Any]] = {
    STATUS: (read_status, asdict(Status("finished", "load", ["load"], {}, 1.0))),
    METRICS: (read_metrics, {"ppl_before": 9.5, "latency_ms_before": None, "ppl_text": "t", "tasks": {}}),
    SAMPLES: (read_samples, [{"prompt": "a", "dense": {"text": "b", "tokens_per_second": 2.0}}]),
    SENSITIVITY: (read_sensitivity, asdict(Sensitivity(9.5, "t", 8, 64, "l2", [POINT]))),
    SWEEP: (
        read_sweep,
        asdict(Sweep(9.5, 10, 5, "t", 8, 64, "c", 2, (Point("l2", 0.2, "global", "none", 0, 16),))),
    ),
    ACTIVATIONS: (read_activations, asdict(Activations((Activation(0, "ffn", 0.5, 0.7, 9.0),), 64, "t"))),
    WIDTHS: (read_widths, {"layers": [LAYER], "dense": {**LAYER, "hidden": 16}, "hidden": 12}),
    PERPLEXITY: (read_perplexities, {"dense": asdict(Perplexity(9.5, 2.25, 64, 8, "a", (2.0, 2.5)))}),
    EFFICIENCY: (
        read_efficiency,
        {"dense": asdict(Efficiency(10, 2.0, 8.0, 0.5, 0.5, None, (TIMING,)))},
    ),
    BENCHMARKS: (read_benchmarks, {"dense": {"tasks": {"piqa": asdict(TASK)}}}),
}
#: File, where in it, and what stands there instead.
WRONG: list[tuple[str, tuple[Any, ...], Any]] = [
    (STATUS, ("progress",), NAN), (STATUS, ("stages",), {"load": 1}), (STATUS, ("pid",), "12"),
    (STATUS, ("created",), [1.0]), (STATUS, ("error",), "no object"), (STATUS, ("state",), "dancing"),
    (METRICS, ("ppl_before",), "9.5"), (METRICS, ("ppl_before",), [9.5]), (METRICS, ("ppl_before",), -1.0),
    (METRICS, ("latency_ms_before",), True), (METRICS, ("ppl_text",), 3), (METRICS, ("tasks",), ["piqa"]),
    (SAMPLES, (0,), "b"), (SAMPLES, (0, "prompt"), 3), (SAMPLES, (0, "dense"), "b"),
    (SENSITIVITY, ("baseline_ppl",), "9.5"), (SENSITIVITY, ("points",), {}), (SENSITIVITY, ("window",), 0),
    (SENSITIVITY, ("points", 0), 3), (SENSITIVITY, ("points", 0, "layer"), "0"),
    (SENSITIVITY, ("points", 0, "unit"), None), (SENSITIVITY, ("points", 0, "ppl"), "much"),
    (SWEEP, ("points",), 3), (SWEEP, ("points", 0), []), (SWEEP, ("points", 0, "samples"), NAN),
    (SWEEP, ("points", 0, "ppl"), [1.0]), (SWEEP, ("params",), "10"), (SWEEP, ("window",), 0),
    (WIDTHS, ("layers",), {}), (WIDTHS, ("layers", 0, "ffn"), NAN), (WIDTHS, ("layers", 0, "ffn"), -1),
    (WIDTHS, ("dense",), []), (WIDTHS, ("hidden",), "12"),
    (PERPLEXITY, ("dense",), 3), (PERPLEXITY, ("dense", "losses"), "many"),
    (PERPLEXITY, ("dense", "window"), 0), (PERPLEXITY, ("dense", "tokens"), NAN),
    (EFFICIENCY, ("dense", "timings"), []), (EFFICIENCY, ("dense", "timings", 0), []),
    (EFFICIENCY, ("dense", "timings", 0, "decode_ms"), 0.0), (EFFICIENCY, ("dense", "params"), None),
    (BENCHMARKS, ("dense",), []), (BENCHMARKS, ("dense", "tasks", "piqa"), []),
    (BENCHMARKS, ("dense", "tasks", "piqa", "metrics"), {}),
    (BENCHMARKS, ("dense", "tasks", "piqa", "metrics", "acc"), "0.5"),
    (BENCHMARKS, ("dense", "tasks", "piqa", "samples"), [3]),
]  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_whole_is_read(tmp_path: Path, name: str) -> None:
    read, content = WHOLE[name]
    (tmp_path / name).write_text(json.dumps(content))
    assert read(tmp_path)


@pytest.mark.parametrize(("name", "place", "value"), WRONG)
def test_a_value_of_a_wrong_type_makes_its_file_damaged(
    tmp_path: Path, name: str, place: tuple[Any, ...], value: Any
) -> None:
    read, content = WHOLE[name]
    content = json.loads(json.dumps(content))
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=f"{name} is damaged"):
        read(tmp_path)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("content", [b"", b"{", b"3", b'"x"', b"null", b"\xff\xfe\x00", b"[" * 100_000])
def test_what_is_no_record_is_damaged(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name} is damaged"):
        WHOLE[name][0](tmp_path)


@pytest.mark.parametrize(
    ("name", "read", "arrays", "facts"),
    [
        (SCORES, read_scores, {"l2/g": np.ones((2, 2), np.float32)}, {"criteria": '["l2"]'}),
        (SCORES, read_scores, {"l2": np.ones(2, np.float32)}, {"criteria": '["l2"]'}),
        (SCORES, read_scores, {"l2/g": np.ones(2, np.float32)}, {"criteria": "3"}),
        (
            SIMILARITY,
            read_similarity,
            {"divergence": np.ones((2, 2), np.float32)},
            {"facts": '{"layers": [0, 1], "tokens": 3, "text": "t"}'},
        ),
        (SIMILARITY, read_similarity, {"divergence": np.ones((1, 2, 2), np.float32)}, {"facts": "[]"}),
        (MASKS, read_masks, {"factors/ffn": np.ones(2, np.float32)}, {"facts": '{"step": 1, "steps": 2}'}),
        (MASKS, read_masks, {}, {"facts": '{"step": "x", "steps": 2}'}),
    ],
)
def test_arrays_that_do_not_fit_together_are_damaged(
    tmp_path: Path, name: str, read: Callable[[Path], Any], arrays: dict[str, Any], facts: dict[str, str]
) -> None:
    save_arrays(tmp_path / name, arrays, facts)
    with pytest.raises(ArtifactError, match=f"{name} is damaged"):
        read(tmp_path)


def test_the_message_names_the_place_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / SWEEP).write_text(json.dumps({**WHOLE[SWEEP][1], "params": "10", "new": 1}))
    with pytest.raises(ArtifactError, match=r"damaged \(params: Input .* valid integer; .*sweep again"):
        read_sweep(tmp_path)


def test_a_full_disk_is_told_from_one_that_cannot_be_written(tmp_path: Path) -> None:
    """safetensors has an error of its own for both, with words and no number."""
    for said, told in (
        ("No space left on device (os error 28)", "No space left on device; free some space"),
        ("Permission denied (os error 13)", "denied .*; choose another folder"),
    ):
        wanted = pytest.raises(StorageError, match=f"cannot be written: .*{told}")
        with wanted, written_beside(tmp_path / "x.safetensors"):
            raise SafetensorError(f"Error while serializing: I/O error: {said}")
