"""Where a model comes from: the demo, a hub id, a folder, a GGUF file, or a run that left one."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from core.errors import ArtifactError, ModelError, NotPrunableError
from core.graph.records import Graph
from core.models.adapters import CONFIG, alone, base_of
from core.models.demo import DEMO_NAME, demo_folder
from core.models.gguf import gguf_folder
from core.models.hub import PATIENCE, answer_of
from core.plan.composed import what_is_left
from core.plan.records import check_plan
from core.runs.artifacts import GROUPS, MODEL, PLAN, SPEC, read_graph, read_plan

ACCEPTED = "'demo', a hub id such as 'org/name', a folder, a .gguf file, or a run directory"
#: Files of a model that are fetched together; never a pickle.
_READ = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.md", "*.py")
#: So many names of a folder are compared with one that is not there.
_LOOKED_AT = 10_000
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class Source:
    """What a source turned out to be.

    Attributes:
        where: a folder, or a hub id for kind `hub`.
        revision: the commit on the hub.
    """

    kind: Literal["folder", "hub", "pruned"]
    where: str
    name: str
    revision: str | None = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of `from_pretrained` that read this source."""
        return {"revision": self.revision} if self.revision else {}


def resolve(source: str) -> Source:
    """Find out what a source is, without reading weights. Raises ModelError."""
    if source == "demo":
        return Source("folder", str(demo_folder()), DEMO_NAME)
    if (here := at_hand(source)) is not None:
        return here
    path = Path(source).expanduser()
    return Source("folder", str(gguf_folder(path)), path.stem) if path.is_file() else _resolve_hub(source)


def at_hand(source: str) -> Source | None:
    """What a source is, where its files lie here as they are read; None for the demo, a GGUF and the hub.

    Raises:
        ModelError: it is nothing of these, or a folder with no model in it.
    """
    path = Path(source).expanduser()
    if path.name == "config.json" and path.is_file():
        path = path.parent
    if source != "demo" and path.is_dir():
        return _resolve_folder(path)
    if path.is_file() and path.suffix.lower() != ".gguf":
        raise ModelError(f"{source} is a file, but not a .gguf file; give the folder it lies in.")
    if source == "demo" or path.is_file():
        return None
    if path.is_absolute() or source.startswith((".", "~")) or path.suffix.lower() == ".gguf":
        raise ModelError(f"There is no folder or file {source}.{_meant(path)} Give {ACCEPTED}.")
    if not _HUB_ID.fullmatch(source):
        raise ModelError(f"'{source}' is not a model; give {ACCEPTED}.")
    if (owner := Path(path.parts[0])) != path and owner.is_dir() and not _downloaded(source):
        raise ModelError(
            f"There is no {path.name} in the folder {owner}.{_meant(path)} Give {ACCEPTED}; for the hub's "
            f"{source}, which has the name of that folder, download it first: hf download {source}."
        )
    return None


def _downloaded(source: str) -> bool:
    """Whether the local cache has something of a model on the hub."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return (Path(HF_HUB_CACHE) / f"models--{source.replace('/', '--')}").is_dir()


def _meant(path: Path) -> str:
    """What there is with nearly the name of a path that is not there, as a sentence; empty without any."""
    above = path.parent
    while not above.is_dir() and above != above.parent:
        path, above = above, above.parent
    try:
        names = [each.name for each in islice(above.iterdir(), _LOOKED_AT)]
    except OSError:
        return ""
    near = get_close_matches(path.name, [*names, "demo"], n=1)
    if not near:
        return ""
    return f" Did you mean {above / near[0] if near[0] in names else near[0]}?"


def _resolve_folder(path: Path) -> Source:
    name = path.resolve().name
    if (path / SPEC).is_file():
        if not (path / MODEL / "config.json").is_file():
            raise ModelError(f"Run {name} has left no model (yet); give a finished pruning run.")
        return Source("pruned", str(path / MODEL), name)
    if (path / PLAN).is_file():
        return Source("pruned", str(path), name)
    if not (path / "config.json").is_file():
        if (path / CONFIG).is_file():
            raise alone(str(path), base_of(path))
        hint = next((f"; give the file {file} instead" for file in sorted(path.glob("*.gguf"))), "")
        raise ModelError(f"Folder {path} has no config.json, so it holds no model in the hub's layout{hint}.")
    return Source("folder", str(path), name)


def _resolve_hub(source: str) -> Source:
    """Ask the hub once, with a short time limit; without the hub, a model in the local cache serves."""
    from huggingface_hub import model_info, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HFValidationError, HTTPError, RepositoryNotFoundError  # type: ignore[attr-defined]

    hint = " Did you mean 'demo'?" if source.lower().startswith("demo") else ""
    try:
        info = answer_of(lambda: model_info(source, timeout=PATIENCE), PATIENCE)
    except GatedRepoError as error:
        raise ModelError(f"'{source}' is gated; accept its terms on the hub and log in there.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"There is no model '{source}' here or on the hub.{hint} Give {ACCEPTED}."
        ) from error
    except (OSError, HTTPError) as error:
        for name in ("config.json", CONFIG):
            cached = try_to_load_from_cache(source, name)
            if isinstance(cached, str):  # …/snapshots/<commit>/config.json
                return _snapshot(Path(cached).parent, source)
        raise ModelError(
            f"There is no folder or file '{source}', and the hub cannot be reached to look there ({error})."
            f"{hint} Give {ACCEPTED}."
        ) from error
    if {PLAN, CONFIG} & {file.rfilename for file in info.siblings or ()}:
        return _snapshot(_fetched(source, info.sha), source)
    return Source("hub", source, source, revision=info.sha)


def _fetched(source: str, revision: str | None) -> Path:
    """Where a model from the hub lies that is more than weights and config: pruned, or with an adapter."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(_READ)))
    except (OSError, HTTPError) as error:
        raise ModelError(f"'{source}' cannot be fetched from the hub ({error}); try again.") from error


def _snapshot(folder: Path, source: str) -> Source:
    """A model in the hub's cache, whose folder is called by its commit."""
    try:
        return replace(_resolve_folder(folder), name=source, revision=folder.name)
    except ModelError as error:
        raise ModelError(str(error).replace(str(folder), source)) from error


def groups_left(source: Source) -> Graph:
    """The coupled groups of a pruned model, from its files alone. Raises ArtifactError."""
    folder = Path(source.where)
    graph, plan = read_graph(folder), read_plan(folder)
    try:
        check_plan(graph, plan.removed)
        return what_is_left(graph, plan, model=source.name)
    except (NotPrunableError, KeyError, IndexError) as error:
        raise ArtifactError(
            f"{folder / PLAN} and {GROUPS} beside it do not belong together ({error}); run the pruning again."
        ) from error
