"""Trace a model, follow its channels, and list what has to go together.

Nothing is imported here: `core.graph.records` stays readable without torch.
"""
