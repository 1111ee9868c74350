"""The file of the masks: read as it was written, and damage is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.errors import ArtifactError
from core.results.masks import MASKS, MaskState, read_masks, write_masks


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    factors = {"query_head": np.array([[0.5, np.nan], [0.0, 1.0]], dtype=np.float32)}
    stays = {"query_head": np.array([[True, False], [False, True]])}
    write_masks(tmp_path, MaskState(3, 8, factors, stays))
    state = read_masks(tmp_path)
    assert (state.step, state.steps) == (3, 8)
    np.testing.assert_array_equal(state.factors["query_head"], factors["query_head"])
    np.testing.assert_array_equal(state.stays["query_head"], stays["query_head"])


def test_a_damaged_file_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        read_masks(tmp_path)
    (tmp_path / MASKS).write_bytes(b"no")
    with pytest.raises(ArtifactError, match="damaged"):
        read_masks(tmp_path)
