"""The demo model: where it comes from, that it is converted once, and without loss."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from core.errors import ModelError, StorageError
from core.models import demo, gguf
from core.models.load import load
from core.models.sources import resolve


def test_a_missing_demo_package_names_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEVIZ_CACHE", str(tmp_path))
    monkeypatch.setattr(demo, "_PACKAGE", "no-such-package-here")
    with pytest.raises(ModelError, match=r"no-such-package-here.*make setup"):
        resolve("demo")


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PRUNEVIZ_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match="cannot be written"):
        demo.demo_folder()


SLOW_CONVERT = """
import sys, time
from pathlib import Path
from core.models import demo

def convert(gguf, folder, on_progress):
    with open(sys.argv[1], "a") as log:
        log.write("x")
    folder.mkdir()
    (folder / "half").write_text("")
    time.sleep(float(sys.argv[2]))
    (folder / "half").unlink()
    (folder / "config.json").write_text("{}")

demo.convert = convert
print(demo.demo_folder())
"""


def _converting(tmp_path: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW_CONVERT, str(tmp_path / "log"), str(seconds)]
    cache = {**os.environ, "PRUNEVIZ_CACHE": str(tmp_path / "cache")}
    return subprocess.Popen(command, env=cache, stdout=subprocess.PIPE, text=True)


def test_two_processes_convert_the_demo_once(tmp_path: Path) -> None:
    both = [_converting(tmp_path, 0.5) for _ in range(2)]
    answers = [process.communicate(timeout=60)[0].strip() for process in both]
    assert answers[0] == answers[1] != ""
    assert (tmp_path / "log").read_text() == "x"
    assert sorted(file.name for file in Path(answers[0]).iterdir()) == ["README.md", "config.json"]


def test_a_killed_conversion_is_done_again(tmp_path: Path) -> None:
    first = _converting(tmp_path, 60)
    while not list((tmp_path / "cache").glob("*.part/half")):
        assert first.poll() is None, "it ended before it was killed"
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    folder = Path(_converting(tmp_path, 0).communicate(timeout=60)[0].strip())
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json"]
    assert not list((tmp_path / "cache").glob("*.part"))


@pytest.mark.slow
def test_the_demo_model_converts_without_loss(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    gguf.convert(demo.demo_gguf(), tmp_path / "demo", lambda done, total: steps.append((done, total)))
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]
    dense = gguf.read(demo.demo_gguf()).eval()
    loaded = load(str(tmp_path / "demo"), device="cpu")
    ids = torch.tensor([loaded.tokenizer("The capital of France is")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(dense(ids).logits, loaded.model(ids).logits)
    assert loaded.tokenizer.chat_template
    assert loaded.model.generation_config.eos_token_id == 2
