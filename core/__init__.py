"""The pruning engine. Nothing is imported here, so that a torch-free process can read specs, events and plans."""
