"""What a teacher expects of every token of a text, kept on disk: its likeliest tokens, and how likely.

A folder holds `teacher.json`, which says of which model and text it is, and parts, which are added to. What
is kept of a sequence is found by the sequence itself, so that runs with other seeds share it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from core.errors import ArtifactError, DataError, StorageError, storage_error
from core.files import DAMAGES, make_folder, read_record, save_arrays, write_json
from core.recover.examples import IGNORED, Example, collate

ABOUT = "teacher.json"
#: Sequences in a part, and in memory at once while they are read.
_OF_PART, _AT_ONCE = 64, 4
#: Numbers of every tensor that tell one model from another.
_LOOKED_AT = 4096


@dataclass(frozen=True)
class About:
    """Of what a folder is.

    Attributes:
        model, model_sha256: the teacher, and a hash over numbers of all its weights.
        text, text_sha256: what it read; top_k, temperature: how much of its answers is kept.
    """

    model: str
    model_sha256: str
    text: str
    text_sha256: str
    top_k: int
    temperature: float


def hash_of(model: torch.nn.Module) -> str:
    """A hash over evenly spread numbers of every weight: a model that was trained on has another."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        flat = value.detach().flatten()
        seen = flat[:: max(1, len(flat) // _LOOKED_AT)].float().cpu().numpy()
        digest.update(f"{name} {tuple(value.shape)} ".encode() + seen.tobytes())
    return digest.hexdigest()


def counted(labels: Tensor) -> Tensor:
    """The positions whose next token is predicted, (batch, length), of labels as `collate` gives them."""
    return torch.nn.functional.pad(labels[:, 1:] != IGNORED, (0, 1), value=False)


def key_of(example: Example) -> str:
    """What a sequence is found by."""
    return hashlib.sha256(json.dumps([example.ids, example.labels]).encode()).hexdigest()[:32]


def _words(about: About) -> str:
    texts = f"{about.model} ({about.model_sha256[:8]}) says of {about.text} ({about.text_sha256[:8]})"
    return f"{texts}, {about.top_k} tokens at temperature {about.temperature:g}"


def _index_type(vocabulary: int) -> np.dtype[Any]:
    return np.min_scalar_type(vocabulary - 1)


class Kept:
    """What was kept of a teacher.

    Args:
        folder: made when something is kept; about: of what it must be, None for whatever is there.

    Raises:
        DataError: it is of another model or text, which is named; ArtifactError: a file is damaged.
    """

    def __init__(self, folder: Path, about: About | None = None) -> None:
        self.folder = folder
        self._places: dict[str, tuple[Path, int, int]] = {}
        self._opened: dict[Path, Any] = {}
        self._stack = ExitStack()
        if about is None or (folder / ABOUT).exists():
            there = read_record(folder / ABOUT, About, "remove the folder")
            self._check(there, about or there)
            about = there
        self.about = about
        for path in sorted(folder.glob("part-*.safetensors")):
            self._list(path)

    def _check(self, there: About, wanted: About) -> None:
        """Raises DataError where one is not the other; names both."""
        other = {name for name, value in asdict(wanted).items() if getattr(there, name) != value}
        if not other:
            return
        same_names = (there.model, there.text) == (wanted.model, wanted.text)
        why = " under the same name" if same_names and other & {"model_sha256", "text_sha256"} else ""
        raise DataError(
            f"{self.folder} keeps what {_words(there)}; this run needs what {_words(wanted)}{why}. Give "
            "another --teacher-logits folder, or remove this one."
        )

    def bytes_of(self, model: Any, examples: Sequence[Example]) -> int:
        """What it takes to keep these sequences too."""
        positions = sum(sum(label != IGNORED for label in example.labels[1:]) for example in examples)
        vocabulary = int(model.config.get_text_config().vocab_size)
        return positions * min(self.about.top_k, vocabulary) * (2 + _index_type(vocabulary).itemsize)

    def _list(self, path: Path) -> None:
        try:
            file = self._stack.enter_context(safe_open(path, "numpy"))
            keys, ends = json.loads(file.metadata()["keys"]), file.get_tensor("ends")
            starts = [0, *ends.tolist()]
            self._opened[path] = file
            for key, first, last in zip(keys, starts, ends.tolist(), strict=False):
                self._places[key] = (path, first, last)
        except DAMAGES as error:
            raise ArtifactError(f"{path} is damaged ({error}); remove it, and it is made again.") from error

    def missing(self, examples: Sequence[Example]) -> list[Example]:
        """Those of which nothing is kept yet."""
        return [example for example in examples if key_of(example) not in self._places]

    def of(self, batch: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """Log-probabilities and tokens of the positions that count, one sequence after the other.

        Returns:
            Values and indices, each (positions, k). Raises ArtifactError where a sequence was not kept.
        """
        values, indices = list[NDArray[np.float16]](), list[NDArray[np.int64]]()
        for example in batch:
            place = self._places.get(key_of(example))
            if place is None:
                raise ArtifactError(f"{self.folder} lacks a sequence of {self.about.text}; remove it.")
            path, first, last = place
            file = self._opened[path]
            values.append(file.get_slice("values")[first:last])
            indices.append(file.get_slice("indices")[first:last].astype(np.int64))
        # By numpy: while matrices are multiplied in bfloat16, torch joins no float16 on a CPU.
        return torch.from_numpy(np.concatenate(values)), torch.from_numpy(np.concatenate(indices))

    def add(
        self,
        model: Any,
        examples: Sequence[Example],
        padding: int,
        on_progress: Callable[[int, int], None],
    ) -> None:
        """Let the teacher read these sequences, and keep what it says; every part stays, whatever comes.

        Raises:
            StorageError: the disk is full, or too small for all of it, which is said first.
        """
        vocabulary = int(model.config.get_text_config().vocab_size)
        try:
            make_folder(self.folder)
        except OSError as error:
            raise storage_error(self.folder, error) from error
        self._room(self.bytes_of(model, examples))
        write_json(self.folder / ABOUT, asdict(self.about))
        for first in range(0, len(examples), _OF_PART):
            part = examples[first : first + _OF_PART]
            said = [line for batch in _batches(part) for line in self._read(model, batch, padding)]
            arrays = {
                "values": np.concatenate([values for values, _ in said]),
                "indices": np.concatenate([tops for _, tops in said]).astype(_index_type(vocabulary)),
                "ends": np.cumsum([len(values) for values, _ in said]),
            }
            number = len(list(self.folder.glob("part-*.safetensors")))
            path = self.folder / f"part-{number:05d}.safetensors"
            save_arrays(path, arrays, {"keys": json.dumps([key_of(example) for example in part])})
            self._list(path)
            on_progress(first + len(part), len(examples))

    def _room(self, size: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise StorageError(
                f"The teacher's logits take {size / 2**30:.2f} GiB in {self.folder}, and {free / 2**30:.2f} "
                "GiB are free; take fewer steps, a lower --teacher-top-k or another --teacher-logits folder."
            )

    @torch.no_grad()
    def _read(
        self, model: Any, batch: Sequence[Example], padding: int
    ) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        inputs = {name: value.to(model.device) for name, value in collate(batch, padding).items()}
        labels = inputs.pop("labels")
        logits = model(**inputs, use_cache=False).logits
        for row, where in zip(logits, counted(labels), strict=True):
            answers = (row[where].float() / self.about.temperature).log_softmax(dim=-1)
            values, tops = answers.topk(min(self.about.top_k, answers.shape[-1]), dim=-1)
            yield values.to(torch.float16).cpu().numpy(), tops.cpu().numpy()


def _batches(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    return (examples[first : first + _AT_ONCE] for first in range(0, len(examples), _AT_ONCE))
