"""Runs on other machines: given to a cluster, watched there, and gone on with where a node is lost."""
