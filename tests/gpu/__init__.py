"""Tests of the GPU tier: they are run by `make gpu` on a machine with CUDA, and skipped elsewhere."""
