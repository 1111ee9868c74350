"""An export that is given to the hub, which no test reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from core.cli.app import main
from core.errors import SpecError
from core.ship import hub
from core.ship.hub import check, push
from tests.cli.calls import answer, refused


@pytest.fixture
def pruned(asked: dict[str, list[str]], capsys: pytest.CaptureFixture[str]) -> str:
    """The directory of a pruning run."""
    return str(answer(capsys, [*asked["prune"], "--ppl-also", ""])["run_dir"])


def test_a_dry_run_says_what_would_be_uploaded_and_asks_nobody(
    pruned: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], offline: None
) -> None:
    more = ["--push-to", "me/tiny-pruned", "--dry-run", "--runs-dir", str(tmp_path / "runs")]
    shown = answer(capsys, ["export", pruned, *more])
    assert shown["pushed"] == ""
    log = (Path(shown["run_dir"]) / "log.txt").read_text("utf-8")
    assert "Would create me/tiny-pruned as a private repository, and upload" in log
    assert "model.safetensors" in log and "modeling_pruned.py" in log


def test_a_hub_that_refuses_is_one_line_and_the_files_stay(
    pruned: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    offline: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "of nobody")
    out = tmp_path / "mine"
    more = ["--push-to", "me/tiny", "--out", str(out), "--runs-dir", str(tmp_path / "runs")]
    assert main(["export", pruned, *more]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "The hub did not take me/tiny" in said and "hf auth login" in said and str(out) in said
    assert (out / "config.json").is_file()


def test_a_folder_is_uploaded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(
        HfApi, "create_repo", lambda _, repo, **more: calls.append((repo, more)) or "https://x"
    )
    monkeypatch.setattr(HfApi, "upload_folder", lambda _, **more: calls.append(more))
    assert push(tmp_path, "me/tiny", {"config.json": 5}, dry=False, say=lambda _: None) == "https://x"
    assert calls[0] == ("me/tiny", {"private": True, "exist_ok": True})
    assert (calls[1]["repo_id"], calls[1]["folder_path"]) == ("me/tiny", tmp_path)


def test_what_cannot_be_uploaded_is_refused_before_anything_is_written(
    pruned: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tiny", "a/b/c", "me/ti ny"):
        with pytest.raises(SpecError, match="--push-to takes owner/name"):
            check(name, dry=True)

    def said(*words: str) -> str:
        return refused(capsys, ["export", pruned, *words, "--runs-dir", str(tmp_path / "runs")])

    assert "--push-to takes owner/name, got 'tiny'" in said("--push-to", "tiny")
    assert "name the repository with --push-to" in said("--dry-run")
    monkeypatch.setattr(hub, "get_token", lambda: None)
    assert "Nobody is logged in to the hub here, so me/tiny" in said("--push-to", "me/tiny")
