"""The dependency graph: trace a model, follow its channels, and list what has to go together.

`discover` is the door; `records` holds what it gives. In the order in which it works: `trace` records a
forward pass, `flow` and `layers` follow the channels through it by the rules of `moving`, `pointwise`,
`products` and `reducing`, and `units` makes groups of what was coupled.

Nothing is imported here: `core.graph.records` stays readable without torch.
"""
