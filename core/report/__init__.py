"""Finished runs as one self-contained HTML file. Nothing here needs torch."""
