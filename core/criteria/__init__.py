"""Criteria: what a unit is worth, one file per paper. Importing this package registers all of them.

A criterion is a pure function of a `GroupView`: the weights of one group's units, and the statistics
it names in `needs`. To add one, write a file beside `wanda.py`, the shortest, and import it below. torch is
imported where a function computes, so that a page can list criteria without it.
"""

from __future__ import annotations

from core.criteria import depth, flap, fusion, llm_pruner, output_approximation, random, wanda  # registers
from core.criteria.registry import CRITERIA

__all__ = ["CRITERIA", "depth", "flap", "fusion", "llm_pruner", "output_approximation", "random", "wanda"]
