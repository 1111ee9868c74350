"""The headless interface: `python -m core --help`, a file per command."""
