"""The dashboard of this checkout: `python app.py --help`."""

from pruneviz.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main())
