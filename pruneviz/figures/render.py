"""The page's templates: whatever is put into one is escaped."""

from __future__ import annotations

from pathlib import Path

from core.results.render import renderer
from pruneviz.data.labels import on_page

render = renderer(Path(__file__).parents[1] / "templates", filters=(on_page,))
