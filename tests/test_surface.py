"""What `import core` offers: these names, documented and lazy; and `docs/python.md` does what it says."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import core
from core.errors import PruneError

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
LOOK = """
import sys, core
dir(core), core.RunSpec().to_json()
print(",".join(sorted({"torch", "transformers", "gradio", "plotly"} & set(sys.modules))) or "none")
"""


def test_nothing_but_the_surface_is_offered() -> None:
    assert dir(core) == sorted(core.__all__) and len(core.__all__) <= 12
    assert core._HOMES.keys() == set(core.__all__), "a name without a home, or a home that nobody is told of"
    source = (ROOT / "core" / "__init__.py").read_text(encoding="utf-8")
    typed = re.findall(r"^    from (\S+) import (.+)$", source, re.M)
    assert {name: home for home, names in typed for name in names.split(", ")} == core._HOMES
    with pytest.raises(AttributeError, match="has no attribute 'prune'; it offers load, discover"):
        core.prune  # noqa: B018


@pytest.mark.parametrize("name", core.__all__)
def test_every_name_is_documented_at_home_and_hidden_by_no_module(name: str) -> None:
    offered = getattr(core, name)
    assert (offered.__module__, offered.__name__) == (core._HOMES[name], name)
    assert not (ROOT / "core" / name).exists() and not (ROOT / "core" / f"{name}.py").exists()
    text = inspect.getdoc(offered) or ""
    assert len(text) > 40
    if inspect.isfunction(offered):
        assert "Raises" in text, "which errors does it raise?"
        assert all(p.annotation is not p.empty for p in inspect.signature(offered).parameters.values())


def test_importing_it_loads_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "none", done.stderr


def test_the_page_does_the_demo(
    tmp_path: Path, tiny_llama_folder: Path, texts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.+?)```", PAGE, re.S)
    assert len(code.splitlines()) <= 30 and {name for name in core.__all__ if f"core.{name}(" in code} == set(
        core.__all__
    ) - {"RunSpec", "run"}
    small = code.replace('load("demo")', f'load({str(tiny_llama_folder)!r}, device="cpu")')
    small = small.replace("samples=16, length=128", f"{str(texts[0])!r}, samples=4, length=16")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(small, names)
    assert 0.15 < names["plan"].sparsity < 0.25  # type: ignore[attr-defined]
    assert (tmp_path / "demo-pruned" / "plan.json").is_file()


def test_a_run_is_done_and_leaves_its_folder(
    tmp_path: Path, tiny_llama_folder: Path, texts: tuple[Path, Path]
) -> None:
    (asked,) = re.findall(r"`(\{.+?\}\})`", PAGE, re.S)
    raw = json.loads(asked)
    raw["model"] = {"source": str(tiny_llama_folder), "device": "cpu"}
    raw["calibration"] = {"name": str(texts[0]), "samples": 2, "length": 16}
    raw["evaluate"] = {"text": str(texts[1]), "window": 16, "tokens": 64, "prompts": [], "efficiency": False}
    begun: list[Path] = []
    run_dir = core.run(core.RunSpec.from_json(json.dumps(raw)), tmp_path, on_begin=begun.append)
    assert begun == [run_dir] and json.loads((run_dir / "metrics.json").read_text())["ppl_after"] > 0
    raw["prune"]["method"] = "tailor"
    with pytest.raises(PruneError, match="tailor"):
        core.run(core.RunSpec.from_json(json.dumps(raw)), tmp_path)
    assert len(list(tmp_path.glob("[!.]*"))) == 1
