"""Build and launch the dashboard: `pruneviz`, `python -m pruneviz` or, in a checkout, `python app.py`."""

from __future__ import annotations

import sys

from core.errors import PruneError
from pruneviz.arguments import parse


def main() -> int:
    """Start the dashboard; 2 with one line on stderr if it cannot start."""
    try:
        arguments = parse()
    except PruneError as error:
        print(error, file=sys.stderr)
        return 2
    from pruneviz.serve import serve  # Gradio takes seconds to import; a wrong option is answered at once

    serve(arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
