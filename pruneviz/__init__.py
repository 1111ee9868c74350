"""The dashboard. Never imports torch or transformers: models live in workers and in the engine.

Bottom to top, each imports only what stands before it: `data` reads run directories into records, `figures`
turns records into charts and HTML, `context` is what every tab gets, `actions` launches runs and asks the
engine, `components` are the interactive elements, `tabs` put all of this together, `ui` composes the page,
and `serve` launches it. `tests/test_layout.py` holds the whole order.
"""

from pathlib import Path

_HERE = Path(__file__).resolve().parent
#: Style sheets, scripts and published tables: inside the installed package, or beside it in a checkout.
ASSETS = next(folder for folder in (_HERE / "assets", _HERE.parent / "assets") if folder.is_dir())
