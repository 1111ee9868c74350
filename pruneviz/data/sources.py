"""Models that are here already: what runs worked on, what they left, what the hub's cache holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pruneviz.data.contenders import finished, run_title
from pruneviz.data.runs import RunRecord

#: So many of each kind, the newest first: more are found faster by typing.
MOST = 12


def model_choices(records: Sequence[RunRecord], cache: Path) -> list[tuple[str, str]]:
    """(label, source) of each, once: the demo, what was worked on last, models of runs, then the hub's cache.

    Args:
        records: runs, newest first.
        cache: where the hub keeps models.
    """
    own = [record for record in records if not record.example]
    recent = dict.fromkeys(record.model for record in own if record.model)
    left = [(f"{run_title(r)} · {r.id}", str(r.path)) for r in finished(own)][:MOST]
    chosen = [("demo", "demo"), *((f"Recent: {_short(source)}", source) for source in [*recent][:MOST])]
    chosen += [(f"Left by a run: {title}", source) for title, source in left]
    chosen += [(f"In the hub’s cache: {name}", name) for name in cached(cache)]
    first: dict[str, str] = {}
    for label, source in chosen:
        first.setdefault(source, label)
    return [(label, source) for source, label in first.items()]


def cached(cache: Path) -> Iterator[str]:
    """Ids of the models whose config lies in the hub's cache, by name."""
    from huggingface_hub import try_to_load_from_cache

    for folder in sorted(cache.glob("models--*")) if cache.is_dir() else []:
        name = folder.name.removeprefix("models--").replace("--", "/")
        if isinstance(try_to_load_from_cache(name, "config.json", cache_dir=cache), str):
            yield name


def _short(source: str) -> str:
    """Of a path its last two parts."""
    path = Path(source)
    return str(Path(*path.parts[-2:])) if path.is_absolute() else source
