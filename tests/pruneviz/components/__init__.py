"""Tests of the interactive components."""
