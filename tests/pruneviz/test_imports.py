from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = """
import sys
from pathlib import Path
from pruneviz import serve, ui
from pruneviz.context import AppContext
ui.build(AppContext(Path(sys.argv[1])))
heavy = sorted({"torch", "transformers", "plotly"} & set(sys.modules))
print(",".join(heavy) or "none")
"""


def test_building_the_whole_page_leaves_torch_out(tmp_path):
    command = [sys.executable, "-c", BUILD, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "none", done.stderr
